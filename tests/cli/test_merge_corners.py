"""Corners of ``adapters merge`` and ``verify``: what is refused, in which words and with which code; and what weight 0 gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Adapters

WIDTH, WORDS = 8, 16
Q = "model.layers.0.self_attn.q_proj"
MADE = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    place = tmp_path / "base"
    place.mkdir()
    torch.manual_seed(0)
    tensors = {
        "model.embed_tokens.weight": torch.randn(WORDS, WIDTH),
        f"{Q}.weight": torch.randn(WIDTH, WIDTH),
        f"{Q}.bias": torch.randn(WIDTH),
        "model.norm.weight": torch.ones(WIDTH),
        "lm_head.weight": torch.randn(WORDS, WIDTH),
    }
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": WORDS, "torch_dtype": "float32",
              "tie_word_embeddings": False}  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    (place / "tokenizer.json").write_text("{}")
    return place


def lora(into: Path, more: dict[str, torch.Tensor] | None = None, **options: Any) -> Path:
    into.mkdir()
    torch.manual_seed(1)
    tensors = {f"{Q}.lora_A.weight": torch.randn(2, WIDTH), f"{Q}.lora_B.weight": torch.randn(WIDTH, 2), **(more or {})}
    save_file({f"base_model.model.{name}": one for name, one in tensors.items()}, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps(config | options))
    return into


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return lora(tmp_path / "one")


#: What an adapter may bring that is no delta: its tensors, and what its config says of them.
BROUGHT: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {
    "DoRA": ({f"{Q}.lora_magnitude_vector": torch.rand(WIDTH)}, {"use_dora": True}),
    "saved modules": ({"lm_head.weight": torch.rand(WORDS, WIDTH)}, {"modules_to_save": ["lm_head"]}),
    "biases": ({f"{Q}.base_layer.bias": torch.rand(WIDTH)}, {"bias": "lora_only"}),
    "token rows": (
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": torch.rand(2, WIDTH)},
        {"trainable_token_indices": {"embed_tokens": [3, 5]}},
    ),
    "another vocabulary": (
        {"model.embed_tokens.weight": torch.rand(WORDS + 2, WIDTH), "lm_head.weight": torch.rand(WORDS + 2, WIDTH)},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ),
}


@pytest.mark.parametrize("weight", ["0", "-0.0", "0e3"])
@pytest.mark.parametrize("brought", BROUGHT)
def test_weight_0_gives_the_base_back(
    brought: str, weight: str, adapters: Adapters, base: Path, tmp_path: Path
) -> None:
    tensors, options = BROUGHT[brought]
    made, out = lora(tmp_path / "made", tensors, **options), tmp_path / "out"
    done = adapters.json("merge", str(base), f"{made}={weight}", "-o", str(out))
    assert done["tensors"]["changed"] == 0
    assert sorted(path.name for path in out.iterdir()) == MADE
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes(), name
    assert adapters.json("verify", str(out), "--base", str(base), "--adapter", f"{made}={weight}", "--all")["sound"]


@pytest.mark.parametrize("brought", BROUGHT)
def test_any_other_weight_is_refused(brought: str, adapters: Adapters, base: Path, tmp_path: Path) -> None:
    tensors, options = BROUGHT[brought]
    made = lora(tmp_path / "made", tensors, **options)
    refused = adapters.refusal("merge", str(base), f"{made}=0.5", "-o", str(tmp_path / "out"))
    assert refused["exit_code"] == 6
    assert refused["code"] in ("weight-on-dora", "weight-on-replacement")
    assert not (tmp_path / "out").exists()


ROWS = {
    f"{Q}.lora_A.weight": torch.rand(2, WIDTH),
    "model.embed_tokens.token_adapter.trainable_tokens_delta": torch.rand(2, WIDTH),
}
HEAD = {"lm_head.lora_A.weight": torch.rand(2, WIDTH), "lm_head.lora_B.weight": torch.rand(WORDS, 2)}


@pytest.mark.parametrize("count", [1, 2])
def test_who_changes_and_who_replaces_is_said(count: int, adapters: Adapters, base: Path, tmp_path: Path) -> None:
    """Rows of single tokens are of both sides where these are tied, and so meet a LoRA of the other."""
    edited(tie_word_embeddings=True)(base)
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    tokens = {"trainable_token_indices": {"embed_tokens": [3, 5]}}
    targets = {"target_modules": ["q_proj", "lm_head"]}
    made = [lora(tmp_path / "rows", ROWS | HEAD, **tokens, **targets)]
    if count == 2:
        made = [lora(tmp_path / "both", ROWS, **tokens), lora(tmp_path / "head", HEAD, **targets)]
    said = adapters("merge", str(base), *map(str, made), "-o", str(tmp_path / "out"))
    assert (said.code, (tmp_path / "out").exists()) == (6, False)
    wanted = f"{made[0]} changes lm_head.weight, and replaces rows of it"
    assert (
        wanted if count == 1 else f"{made[0]} replaces lm_head.weight, in part or whole, and {made[1]} changes it"
    ) in said.err
    assert ("one of them" in said.err) is (count == 2)


def nothing(place: Path) -> None: ...


def without_config(place: Path) -> None:
    (place / "base" / "config.json").unlink()


def instead(name: str) -> Callable[[Path], object]:
    return lambda place: (place / "base" / "model.safetensors").rename(place / "base" / name)


#: What is done before, the arguments, the exit code, and words of the sentence.
REFUSED: dict[str, tuple[Callable[[Path], object], list[str], int, str]] = {
    "into the base itself": (nothing, ["merge", "base", "one", "-o", "base"], 3, "would be"),
    "into the base": (nothing, ["merge", "base", "one", "-o", "base/merged"], 3, "would lie inside"),
    "deep into the base": (nothing, ["merge", "base", "one", "-o", "base/a/../b/c"], 3, "would lie inside"),
    "into the base by another name": (
        lambda place: (place / "link").symlink_to(place / "base"),
        ["merge", "base", "one", "-o", "link/merged"],
        3,
        "would lie inside",
    ),
    "into the adapter itself": (nothing, ["merge", "base", "one", "-o", "one"], 5, "not empty"),
    "to no name": (nothing, ["merge", "base", "one", "-o", ""], 2, "say where to"),
    "to a blank": (nothing, ["merge", "base", "one", "-o", " "], 2, "say where to"),
    "a base that nobody knows": (nothing, ["merge", "@nobase", "one", "-o", "out"], 4, "neither a directory here"),
    "the same at a revision": (nothing, ["merge", "@nobase@main", "one", "-o", "out"], 4, "neither a directory here"),
    "a base without a config": (without_config, ["merge", "base", "one", "-o", "out"], 4, "has no config.json"),
    "a pickled base": (
        instead("pytorch_model.bin"),
        ["merge", "base", "one", "-o", "out"],
        4,
        "its weights are pytorch_model.bin",
    ),
    "and its way out": (
        instead("pytorch_model.bin"),
        ["merge", "base", "one", "-o", "out"],
        4,
        "safe_serialization=True",
    ),
    "a GGUF base": (instead("tiny-Q4.gguf"), ["merge", "base", "one", "-o", "out"], 4, "its weights are tiny-Q4.gguf"),
    "and its way": (instead("tiny-Q4.gguf"), ["merge", "base", "one", "-o", "out"], 4, 'gguf_file="tiny-Q4.gguf"'),
    "a device that is not there": (
        nothing,
        ["merge", "base", "one", "-o", "out", "--device", "cuda:99"],
        8,
        "no device cuda:99",
    ),
    "the same for a plan": (nothing, ["merge", "base", "one", "--plan", "--device", "cuda:99"], 8, "no device cuda:99"),
    "a sample of nothing": (
        nothing,
        ["verify", "base", "--base", "base", "--adapter", "one", "--sample", "0"],
        2,
        "from 1 on",
    ),
    "a sample of some": (
        nothing,
        ["verify", "base", "--base", "base", "--adapter", "one", "--sample", "some"],
        2,
        "from 1 on",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_sentence_and_writes_nothing(
    case: str, adapters: Adapters, base: Path, one: Path, tmp_path: Path
) -> None:
    prepare, words, code, sentence = REFUSED[case]
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    paths = {"base", "one", "out", "link"}
    said = adapters(
        *(str(tmp_path / word) if word.partition("/")[0] in paths and not word.startswith("@") else word.removeprefix("@")
          for word in words)
    )  # fmt: skip
    assert said.code == code, said.err
    assert sentence in " ".join(said.err.replace("│", " ").split())
    assert "Traceback" not in said.err
    assert sorted(path for path in tmp_path.rglob("*") if "registry" not in path.parts) == before
    if code != 2:
        assert len(said.err.splitlines()) == 2, said.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is there")
def test_a_machine_without_cuda_says_so(adapters: Adapters, base: Path, one: Path, tmp_path: Path) -> None:
    refused = adapters.refusal("merge", str(base), str(one), "-o", str(tmp_path / "out"), "--device", "cuda")
    assert (refused["code"], refused["exit_code"]) == ("no-device", 8)
    assert "--device cpu" in refused["hint"]
    assert not (tmp_path / "out").exists()


def test_each_reason_is_said_once(adapters: Adapters, base: Path, tmp_path: Path) -> None:
    tensors = BROUGHT["saved modules"][0] | BROUGHT["biases"][0]
    made = lora(tmp_path / "made", tensors, modules_to_save=["lm_head"], bias="lora_only")
    said = adapters("merge", str(base), f"{made}=0.5", "-o", str(tmp_path / "out"))
    assert said.code == 6
    first, *reasons = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert first == f"error: {made} cannot be merged, for 2 reasons"
    assert len(set(reasons)) == len(reasons) == 2
    assert all(said.err.count(reason.removeprefix("error: ")) == 1 for reason in reasons)


def test_a_base_of_which_there_is_no_more_to_say_has_an_empty_config(
    adapters: Adapters, base: Path, one: Path, tmp_path: Path
) -> None:
    (base / "config.json").write_text("{}")
    assert adapters.json("merge", str(base), str(one), "-o", str(tmp_path / "out"))["verification"]["sound"]


def test_the_output_may_lie_below_an_adapter(adapters: Adapters, base: Path, one: Path) -> None:
    """Where trainers put it; a push leaves it out."""
    assert adapters.json("merge", str(base), str(one), "-o", str(one / "merged"))["verification"]["sound"]


# What verify looks at


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        config = json.loads((out / "config.json").read_text()) | changes
        (out / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return edit


def put(name: str) -> Callable[[Path], None]:
    def write(out: Path) -> None:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"{}")

    return write


#: What was done to the merged checkpoint, and what of the answer says so.
CHANGED: dict[str, tuple[Callable[[Path], object], str, list[str]]] = {
    "a key of the config": (edited(vocab_size=9), "config", ["vocab_size is 9, expected 16"]),
    "a key that is gone": (edited(vocab_size=None), "config", ["vocab_size is absent, expected 16"]),
    "a key more": (
        edited(auto_map={"AutoModel": "x.Y"}),
        "config",
        ["auto_map is {'AutoModel': 'x.Y'}, expected absent"],
    ),
    "a truth that is a number": (edited(tie_word_embeddings=0), "config", ["tie_word_embeddings is 0, expected False"]),
    "no config": (lambda out: (out / "config.json").unlink(), "config", ["config.json is not there"]),
    "weights beside": (
        lambda out: shutil.copyfile(out / MADE[2], out / "more.safetensors"),
        "stray",
        ["more.safetensors"],
    ),
    "pickled weights": (put("pytorch_model.bin"), "stray", ["pytorch_model.bin"]),
    "a pickle": (put("consolidated.00.pth"), "stray", ["consolidated.00.pth"]),
    "an adapter": (put("adapter_config.json"), "stray", ["adapter_config.json"]),
    "code": (put("modeling_llama.py"), "stray", ["modeling_llama.py"]),
    "another format, below": (put("gguf/model.GGUF"), "stray", ["gguf/model.GGUF"]),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_is_not_the_merges_beside_the_weights_is_said(
    case: str, adapters: Adapters, base: Path, one: Path, tmp_path: Path
) -> None:
    act, field, found = CHANGED[case]
    out = tmp_path / "out"
    adapters.json("merge", str(base), str(one), "-o", str(out))
    verify = ["verify", str(out), "--base", str(base), "--adapter", str(one)]
    assert adapters.json(*verify)["sound"]
    act(out)
    said = adapters(*verify, "--json")
    assert said.code == 6
    answer = json.loads(said.out)
    assert answer["sound"] is False
    assert answer[field] == found
    assert found[0].split(" is ")[0] in json.loads(said.err)["error"]["message"]


def test_what_saving_says_of_itself_and_harmless_files_are_no_fault(
    adapters: Adapters, base: Path, one: Path, tmp_path: Path
) -> None:
    """transformers writes its version, and ``dtype`` where earlier ones wrote ``torch_dtype``."""
    out = tmp_path / "out"
    adapters.json("merge", str(base), str(one), "-o", str(out))
    edited(torch_dtype=None, dtype="float32", transformers_version="5.0.0", _name_or_path="x")(out)
    for name in ("generation_config.json", "notes.txt", "images/one.png", ".cache/model.bin"):
        put(name)(out)
    assert adapters.json("verify", str(out), "--base", str(base), "--adapter", str(one))["sound"]


@pytest.mark.parametrize(("sample", "looked_at"), [("1", 16 * 4), ("2", 32 * 4), (None, 48 * 4), ("all", 320 * 4)])
def test_a_sample_is_as_large_as_asked(
    sample: str | None, looked_at: int, adapters: Adapters, base: Path, one: Path, tmp_path: Path
) -> None:
    """Pieces of sixteen rows, of a matrix of twenty such."""
    rows = 320
    torch.manual_seed(3)
    stored = load_file(base / "model.safetensors") | {f"{Q}.weight": torch.randn(rows, 4)}
    del stored[f"{Q}.bias"]
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    factors = {"A": torch.randn(2, 4), "B": torch.randn(rows, 2)}
    tensors = {f"base_model.model.{Q}.lora_{half}.weight": factor for half, factor in factors.items()}
    save_file(tensors, one / "adapter_model.safetensors")
    out = tmp_path / "out"
    adapters.json("merge", str(base), str(one), "-o", str(out))
    options = ["--sample", sample] if sample is not None else []
    answer = adapters.json("verify", str(out), "--base", str(base), "--adapter", str(one), *options)
    assert answer["sound"]
    assert answer["elements"]["looked_at"] == looked_at
    assert answer["sampled"] is (sample != "all")


def test_a_base_of_the_hub_tells_what_it_is_stored_as(
    adapters: Adapters, base: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the output is another type is seen of the base, wherever it comes from."""
    monkeypatch.setattr("registry.hub.snapshots.snapshot", lambda *_: base)
    out = tmp_path / "out"
    adapters.json("merge", "hf://acme/tiny", str(one), "-o", str(out), "--dtype", "bfloat16")
    answer = adapters.json("verify", str(out), "--base", "hf://acme/tiny", "--adapter", str(one), "--all")
    assert answer["sound"]
    assert answer["error_ulps"]["largest"] <= 0.5
