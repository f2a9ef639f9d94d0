"""Output embeddings as people name them in ``modules_to_save`` and ``bias``, in models that call them all differently.

Trained with PEFT, merged, loaded by transformers without a word, and held against what the model with the adapter beside it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from registry.errors import RegistryError
from tests.oracle import merge_oracle as oracle
from tests.oracle.merge_oracle import ROUNDING, TOKENS, apart, config_of, loaded, merge, refusal, tensors_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


_BERT = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64}  # fmt: skip
_SEQ2SEQ = {"vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
_T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
_VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
           "patch_size": 4}  # fmt: skip
_DECODED = {"input_ids": TOKENS, "decoder_input_ids": TOKENS.flip(1)}
_HEARD = {"input_features": torch.linspace(-1, 1, 8 * 16).view(1, 8, 16), "decoder_input_ids": TOKENS}
_SEEN = {"input_ids": TOKENS, "pixel_values": torch.linspace(-1, 1, 192).view(1, 3, 8, 8)}


@dataclass(frozen=True)
class Model:
    kind: str
    config: Callable[[], Any]
    target: str
    inputs: dict[str, Any] = field(default_factory=lambda: {"input_ids": TOKENS})


MODELS = {
    "whisper": Model(
        "WhisperForConditionalGeneration",
        lambda: hf.WhisperConfig(**_SEQ2SEQ, num_mel_bins=8, max_source_positions=8, max_target_positions=16),
        "q_proj",
        _HEARD,
    ),
    "clip": Model(
        "CLIPModel",
        lambda: hf.CLIPConfig(text_config=dict(_BERT), vision_config=dict(_VISION), projection_dim=8),
        "q_proj",
        _SEEN,
    ),
    "t5": Model("T5ForConditionalGeneration", lambda: hf.T5Config(**_T5), "q", _DECODED),
    "t5 v1.1": Model(
        "T5ForConditionalGeneration", lambda: hf.T5Config(**_T5, tie_word_embeddings=False), "q", _DECODED
    ),
    "bart": Model(
        "BartForConditionalGeneration", lambda: hf.BartConfig(**_SEQ2SEQ, max_position_embeddings=32), "q_proj", _DECODED
    ),
    "bert": Model("BertForMaskedLM", lambda: hf.BertConfig(**_BERT), "query"),
    "untied bert": Model("BertForMaskedLM", lambda: hf.BertConfig(**_BERT, tie_word_embeddings=False), "query"),
    "roberta": Model("RobertaForMaskedLM", lambda: hf.RobertaConfig(**_BERT), "query"),
}


def trained(name: str, place: Path, **options: Any) -> tuple[Path, Path, Any]:
    """Base, adapter, and the model that has it beside it."""
    model = MODELS[name]
    kind = getattr(hf, model.kind)
    torch.manual_seed(0)
    made = kind(model.config())
    oracle.perturb(made, size=0.02)  # biases are zeros, and norms ones
    base = oracle.save_base(made, place / "base")
    wrapped = get_peft_model(kind.from_pretrained(base), LoraConfig(r=2, **{"target_modules": [model.target], **options}))
    oracle.perturb(wrapped)
    return base, oracle.save_adapter(wrapped, place / "adapter"), wrapped


def said(model: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**MODELS[name].inputs)[0]
        return found


#: Model, what its LoRA says, and the tensors of the output that the base has not.
OWN: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "whisper's output": ("whisper", {"modules_to_save": ["proj_out"]}, {"proj_out.weight"}),
    "whisper's input": ("whisper", {"modules_to_save": ["embed_tokens"]}, {"proj_out.weight"}),
    "whisper's output by LoRA": ("whisper", {"target_modules": ["q_proj", "proj_out"]}, {"proj_out.weight"}),
    "whisper's biases": ("whisper", {"bias": "all"}, set()),
    "clip's projection": ("clip", {"modules_to_save": ["visual_projection"]}, set()),
    "clip's biases": ("clip", {"bias": "all"}, set()),
    "t5's output, which nothing scales": ("t5 v1.1", {"modules_to_save": ["lm_head"]}, {"lm_head.weight"}),
    "the same by LoRA": ("t5 v1.1", {"target_modules": ["q", "lm_head"]}, {"lm_head.weight"}),
    **{
        f"bert's {module}": (
            "bert",
            {"modules_to_save": [module]},
            {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
        )
        for module in ("decoder", "cls.predictions.decoder", "predictions", "cls")
    },
    "bert's biases": ("bert", {"bias": "all"}, set()),
    "bert's output by LoRA, with its bias": (
        "bert",
        {"target_modules": ["query", "decoder"], "bias": "lora_only"},
        {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
    ),
    "an untied bert's output": ("untied bert", {"modules_to_save": ["decoder"]}, set()),
    "an untied bert's biases": ("untied bert", {"bias": "all"}, set()),
    "roberta's head": ("roberta", {"modules_to_save": ["lm_head"]}, {"lm_head.decoder.weight", "lm_head.decoder.bias"}),
    "roberta's biases": ("roberta", {"bias": "all"}, set()),
}


@pytest.mark.parametrize("case", OWN)
def test_an_output_under_the_models_own_name_is_merged(case: str, tmp_path: Path) -> None:
    name, options, new = OWN[case]
    base, adapter, wrapped = trained(name, tmp_path, **options)
    done = merge(base, adapter, tmp_path / "out")
    assert done.verification.is_sound
    assert tensors_of(tmp_path / "out").keys() - tensors_of(base).keys() == new
    again = loaded(getattr(hf, MODELS[name].kind), tmp_path / "out")
    assert apart(said(again, name), said(wrapped, name)) < ROUNDING
    assert apart(said(again, name), said(loaded(type(again), base), name)) > 100 * ROUNDING


@pytest.mark.parametrize(
    ("name", "head"), [("whisper", "lm_head"), ("clip", "lm_head"), ("clip", "proj_out"), ("t5", "proj_out"), ("bert", "lm_head")]
)
def test_the_name_of_another_models_output_trains_nothing_and_is_said(name: str, head: str, tmp_path: Path) -> None:
    """PEFT neither refuses nor saves it, so that the rest is the whole adapter."""
    base, adapter, wrapped = trained(name, tmp_path, modules_to_save=[head])
    done = merge(base, adapter, tmp_path / "out")
    assert "head-elsewhere" in {finding.rule for finding in done.prepared.findings}
    again = loaded(getattr(hf, MODELS[name].kind), tmp_path / "out")
    assert apart(said(again, name), said(wrapped, name)) < ROUNDING


def test_an_output_of_its_own_beside_a_config_that_says_tied(tmp_path: Path) -> None:
    """What transformers 5 makes of Flan-T5, whose checkpoint has two matrices: it keeps both, and the flag."""
    base, _, _ = trained("t5 v1.1", tmp_path)
    stored = {**tensors_of(base), "lm_head.weight": torch.randn(64, 16)}
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    assert config_of(base)["tie_word_embeddings"] is True
    kind = hf.T5ForConditionalGeneration
    for case, options in {"saved": {"modules_to_save": ["lm_head"]}, "lora": {"target_modules": ["q", "lm_head"]}}.items():
        wrapped = get_peft_model(kind.from_pretrained(base), LoraConfig(r=2, **{"target_modules": ["q"], **options}))
        oracle.perturb(wrapped)
        adapter = oracle.save_adapter(wrapped, tmp_path / case / "adapter")
        merge(base, adapter, tmp_path / case / "out")
        again = loaded(kind, tmp_path / case / "out")
        assert apart(said(again, "t5"), said(wrapped, "t5")) < ROUNDING, case


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [("t5", "lm_head", "would not scale"), ("t5", "shared", "in common"), ("bart", "lm_head", "in common")],
)
def test_what_three_have_in_common_is_refused_with_the_reason(name: str, module: str, reason: str, tmp_path: Path) -> None:
    base, adapter, _ = trained(name, tmp_path, modules_to_save=[module])
    assert refusal(base, adapter, tmp_path / "out") == "tied-encoder-decoder"
    with pytest.raises(RegistryError, match=reason):
        merge(base, adapter, tmp_path / "out")


def test_two_biases_for_one_are_refused(tmp_path: Path) -> None:
    """Saved with the module, and trained beside it."""
    base, adapter, _ = trained("bert", tmp_path, modules_to_save=["decoder"], bias="all")
    assert refusal(base, adapter, tmp_path / "out") == "replacements-differ"
