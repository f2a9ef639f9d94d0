"""Resized vocabularies, copies of embeddings, tokenizers: what follows, and what has to be said."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.merge_oracle import ROUNDING, apart, config_of, loaded, logits, merged, refusal, tensors_of
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
IN_FILE = "base_model.model."
OLD, NEW = 32, 40
NEW_TOKENS = torch.tensor([[3, 39, 2, 33, 9, 4, 1, 38, 5, 6]])
LM: dict[str, Any] = {"r": 2, "task_type": "CAUSAL_LM"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


def tokenizer(words: int) -> Any:
    told = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    told.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=told, unk_token="w0")


def base_of(make: Any, place: Path, dtype: torch.dtype = torch.float32) -> Path:
    base = oracle.save_base(seeded(make).to(dtype), place)
    tokenizer(OLD).save_pretrained(base)
    return base


def resized(make: Any, place: Path, *, rows: int = NEW, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """The adapter's directory, and the model with the adapter beside it."""
    model: Any = seeded(make).to(dtype)
    torch.manual_seed(5)
    model.resize_token_embeddings(rows)
    wrapped = get_peft_model(model, LoraConfig(**{**LM, "target_modules": ["q_proj"], **options}))
    oracle.perturb(wrapped)
    adapter = oracle.save_adapter(wrapped, place, save_embedding_layers=True)
    tokenizer(rows).save_pretrained(adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    return adapter, wrapped.eval()


def _without(*args: Any) -> oracle.Tensors:
    *names, tensors = args
    return {name: tensor for name, tensor in tensors.items() if name not in names}


#: What is trained along with a larger vocabulary.
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "both trained": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "embedding trained": {"target_modules": ["embed_tokens", "q_proj"]},
    "head trained": {"target_modules": ["lm_head", "q_proj"]},
    "tokens": {"trainable_token_indices": [33, 38, 39]},
    "tokens of both": {"trainable_token_indices": {"embed_tokens": [33, 39], "lm_head": [38]}},
}


#: Where one side is trained, PEFT does not save the other, although that is resized as well.
FORGOTTEN = {"embedding trained", "head trained"}


@pytest.mark.parametrize("make", [tiny.llama, tiny.tied_llama])
def test_a_larger_vocabulary_comes_along(make: Any, tmp_path: Path) -> None:
    base = base_of(make, tmp_path / "base")
    is_tied = HEAD not in tensors_of(base)
    for name, options in WAYS.items():
        adapter, wrapped = resized(make, tmp_path / name / "adapter", **options)
        if name in FORGOTTEN and not is_tied:
            assert refusal(base, adapter, tmp_path / name / "out") == "vocabulary-half-resized"
            continue
        out = merged(base, adapter, tmp_path / name / "out")
        model = loaded(hf.AutoModelForCausalLM, tmp_path / name / "out")
        assert apart(logits(model, input_ids=NEW_TOKENS), logits(wrapped, input_ids=NEW_TOKENS)) < ROUNDING, name
        config = config_of(tmp_path / name / "out")
        assert config["vocab_size"] == NEW == out[EMBEDDING].shape[0] == out.get(HEAD, out[EMBEDDING]).shape[0]
        assert config["tie_word_embeddings"] is (HEAD not in out)
        assert is_tied or HEAD in out
        unlike = {"vocab_size", "tie_word_embeddings"}
        assert {k: v for k, v in config.items() if k not in unlike} == {
            k: v for k, v in config_of(base).items() if k not in unlike
        }
        assert len(hf.AutoTokenizer.from_pretrained(tmp_path / name / "out")) == NEW
        assert (tmp_path / name / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
        assert not list((tmp_path / name / "out").glob("adapter*"))


def test_the_vocabulary_in_16_bits_and_other_types(tmp_path: Path) -> None:
    base = base_of(tiny.llama, tmp_path / "base", torch.bfloat16)
    adapter, _ = resized(tiny.llama, tmp_path / "adapter", dtype=torch.bfloat16, **WAYS["both trained"])
    stored = load_file(adapter / oracle.WEIGHTS)
    copied = stored[f"{IN_FILE}model.embed_tokens.base_layer.weight"]
    up, down = (stored[f"{IN_FILE}model.embed_tokens.lora_embedding_{side}"].double() for side in "BA")
    out = merged(base, adapter, tmp_path / "out")
    assert out[EMBEDDING].dtype == torch.bfloat16
    assert oracle.excess(out[EMBEDDING], copied.double() + 4 * (up @ down).T, copied) < 1
    wide = merged(base, adapter, tmp_path / "wide", dtype="F32")
    assert oracle.excess(wide[EMBEDDING], copied.double() + 4 * (up @ down).T, copied) < 1.5


def test_halves_and_quarrels_are_refused(tmp_path: Path) -> None:
    base = base_of(tiny.llama, tmp_path / "base")
    adapter, _ = resized(tiny.llama, tmp_path / "adapter")
    for number, lost in enumerate((f"{IN_FILE}{HEAD}", f"{IN_FILE}{EMBEDDING}")):
        half = oracle.altered(adapter, tmp_path / f"half {number}", partial(_without, lost))
        assert "vocabulary-half-resized" in refusal(base, half, tmp_path / "out")
    larger, _ = resized(tiny.llama, tmp_path / "larger", rows=48)
    assert "replacements-differ" in refusal(base, [adapter, larger], tmp_path / "out")
    config = LoraConfig(**LM, target_modules=["lm_head"])
    old = oracle.train(seeded(tiny.llama), config, tmp_path / "old", save_embedding_layers=False)
    assert refusal(base, [adapter, old], tmp_path / "out")
    plain = oracle.train(seeded(tiny.llama), LoraConfig(**LM, target_modules=["q_proj"]), tmp_path / "plain", seed=7)
    both = merged(base, [adapter, plain], tmp_path / "both")
    assert both[EMBEDDING].shape[0] == NEW
    assert refusal(base, [(adapter, 0.5)], tmp_path / "out") == "weight-on-replacement"


def test_a_padded_vocabulary_is_never_cut(tmp_path: Path) -> None:
    """The tokenizer of the adapter knows fewer tokens than there are rows: rows stay, and whose tokenizer is taken is asked."""
    base = base_of(tiny.llama, tmp_path / "base")
    adapter = oracle.train(seeded(tiny.llama), LoraConfig(**LM, target_modules=["q_proj"]), tmp_path / "adapter")
    tokenizer(20).save_pretrained(adapter)
    for choice, words in ((None, OLD), ("base", OLD), ("adapter", 20)):
        out = merged(base, adapter, tmp_path / f"take {choice}", tokenizer=choice)
        assert out[EMBEDDING].shape[0] == OLD
        assert config_of(tmp_path / f"take {choice}") == config_of(base)
        assert len(hf.AutoTokenizer.from_pretrained(tmp_path / f"take {choice}")) == words
    larger, _ = resized(tiny.llama, tmp_path / "larger")
    merged(base, larger, tmp_path / "kept", tokenizer="base")
    assert len(hf.AutoTokenizer.from_pretrained(tmp_path / "kept")) == OLD


@pytest.mark.parametrize("make", [tiny.llama, tiny.tied_llama])
def test_copies_of_embeddings(make: Any, tmp_path: Path) -> None:
    base = base_of(make, tmp_path / "base")
    config = LoraConfig(**LM, target_modules=["q_proj"])
    adapter = oracle.train(seeded(make), config, tmp_path / "adapter", save_embedding_layers=True)
    names = [name for name in load_file(adapter / oracle.WEIGHTS) if "lora" not in name]
    assert set(names) == {f"{IN_FILE}{EMBEDDING}", f"{IN_FILE}{HEAD}"}
    without = oracle.altered(adapter, tmp_path / "without", partial(_without, *names))
    plain = merged(base, without, tmp_path / "plain")
    copied = merged(base, adapter, tmp_path / "copied")
    assert copied.keys() == plain.keys()
    assert all(torch.equal(copied[name], plain[name]) for name in plain)
    config_kept = config_of(tmp_path / "copied")
    assert config_kept == config_of(base)

    def trained(one: oracle.Tensors) -> oracle.Tensors:
        return {name: tensor + 0.1 if name in names else tensor for name, tensor in one.items()}

    unlike = oracle.altered(adapter, tmp_path / "unlike", trained)
    assert refusal(base, unlike, tmp_path / "out") == "embeddings-differ"
    ours = merged(base, unlike, tmp_path / "ours", embeddings="base")
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    theirs = merged(base, unlike, tmp_path / "theirs", embeddings="adapter")
    assert torch.equal(theirs[EMBEDDING], tensors_of(base)[EMBEDDING] + 0.1)
    assert torch.equal(
        theirs.get(HEAD, theirs[EMBEDDING]), tensors_of(base).get(HEAD, tensors_of(base)[EMBEDDING]) + 0.1
    )
    assert config_of(tmp_path / "theirs") == config_of(base)
    one_side = oracle.altered(unlike, tmp_path / "one-side", partial(_without, names[0]))
    out = merged(base, one_side, tmp_path / "one-side" / "out", embeddings="adapter")
    model = loaded(hf.AutoModelForCausalLM, tmp_path / "one-side" / "out")
    assert out.keys() == {EMBEDDING, HEAD} | plain.keys()
    right: Any = seeded(make)
    side = right.lm_head if names[1].endswith(HEAD) else right.model.embed_tokens
    side.weight = nn.Parameter(side.weight.detach() + 0.1)
    right.config.tie_word_embeddings = False
    assert apart(model.lm_head.weight, right.lm_head.weight) == 0
    assert apart(model.model.embed_tokens.weight, right.model.embed_tokens.weight) == 0


def test_nothing_but_the_model_is_carried_over(tmp_path: Path) -> None:
    base = base_of(tiny.llama, tmp_path / "base")
    (base / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6}')
    (base / "modeling_own.py").write_text("raise SystemExit")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "chat_template.jinja").write_text("base's")
    adapter = oracle.train(seeded(tiny.llama), LoraConfig(**LM, target_modules=["q_proj"]), tmp_path / "adapter")
    shutil.copyfile(adapter / oracle.CONFIG, base / oracle.CONFIG)
    merged(base, adapter, tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name in found - {"README.md", "model.safetensors"}:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
