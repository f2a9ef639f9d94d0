"""What is extracted of families with layers of their own loads in PEFT without a warning, and gives the fine-tune back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn

from registry.connect import connect
from registry.errors import UnextractableError
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOKENS = torch.tensor([[3, 1, 2, 7, 9, 4, 1, 2, 5, 6]])
GPT: dict[str, Any] = {"vocab_size": 48, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def of(name: str, config: str, **fields: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**fields))


def sides(**more: Any) -> dict[str, Any]:
    """Fields of an encoder and a decoder, of one layer each."""
    fields = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in more.items()}
    return {"vocab_size": 48, "d_model": 16, **fields, "decoder_start_token_id": 1}


SIDES = sides(layers=1, ffn_dim=24, attention_heads=2)
BERT: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 40,
}  # fmt: skip
WHISPER: dict[str, Any] = {
    "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip
OPT: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "word_embed_proj_dim": 8, "max_position_embeddings": 32,
}  # fmt: skip
PROPHET: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 16, "max_position_embeddings": 32,
    **{f"num_{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")},
    **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
}  # fmt: skip
DISTIL: dict[str, Any] = {"vocab_size": 48, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "initializer_range": 0.3}
LLAMA: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
MAMBA: dict[str, Any] = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
JAMBA: dict[str, Any] = {
    **LLAMA, "num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False,
}  # fmt: skip
FAMILIES = {
    "bart": of("BartForConditionalGeneration", "BartConfig", **SIDES, max_position_embeddings=32),
    "bert": of("BertForMaskedLM", "BertConfig", **BERT),
    "biogpt": of("BioGptForCausalLM", "BioGptConfig", **BERT),
    "distilbert": of("DistilBertForSequenceClassification", "DistilBertConfig", **DISTIL),
    "falcon-mamba": of("FalconMambaForCausalLM", "FalconMambaConfig", **MAMBA),
    "jamba": of("JambaForCausalLM", "JambaConfig", **JAMBA),
    "llama-bare": of("LlamaModel", "LlamaConfig", **LLAMA),
    "mamba": of("MambaForCausalLM", "MambaConfig", **MAMBA),
    "mamba2": of("Mamba2ForCausalLM", "Mamba2Config", **MAMBA, num_heads=4, head_dim=8, n_groups=2),
    "opt": of("OPTForCausalLM", "OPTConfig", **OPT),
    "prophetnet": of("ProphetNetForConditionalGeneration", "ProphetNetConfig", **PROPHET),
    "roberta": of("RobertaForMaskedLM", "RobertaConfig", **BERT),
    "whisper": of("WhisperForConditionalGeneration", "WhisperConfig", **SIDES, **WHISPER),
    "modernbert": of("ModernBertForMaskedLM", "ModernBertConfig", **BERT, **SPECIAL),
    "openai-gpt": of("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", **GPT),
}


def anything(name: str) -> bool:
    """But for what is refused: an embedding that encoder and decoder have in common."""
    return "shared" not in name and not name.startswith("prophetnet.word_embeddings")


def matrices(name: str) -> bool:
    """Weights of two dimensions, and of convolutions."""
    return anything(name) and name.endswith("weight") and not any(part in name.lower() for part in ("norm", "ln"))


def changed(make: Callable[[], nn.Module], chosen: Callable[[str], bool]) -> nn.Module:
    model = seeded(make)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if chosen(name):
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def outputs(model: nn.Module) -> torch.Tensor:
    inputs: dict[str, torch.Tensor] = {model.main_input_name: TOKENS}  # type: ignore[dict-item]
    if model.main_input_name == "input_features":
        inputs = {"input_features": torch.linspace(-1, 1, 160).reshape(1, 8, 20)}
    if model.config.is_encoder_decoder:  # type: ignore[union-attr]
        inputs["decoder_input_ids"] = TOKENS
    with torch.no_grad():
        return model.eval()(**inputs)[0]  # type: ignore[no-any-return]


def saved(model: nn.Module, into: Path) -> Path:
    model.save_pretrained(into)  # type: ignore[operator]
    return into


def extracted(make: Callable[[], nn.Module], chosen: Callable[[str], bool], work: Path) -> dict[str, Any]:
    """The config of the adapter, which was loaded without a warning and gives the fine-tune back."""
    model = changed(make, chosen)
    base, other = saved(seeded(make), work / "base"), saved(model, work / "tuned")
    connect(work / "registry").extract(base, other, work / "lora", rank=64)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(type(model).from_pretrained(base), str(work / "lora"))  # type: ignore[attr-defined]
    told = [str(one.message) for one in said if not issubclass(one.category, (FutureWarning, DeprecationWarning))]
    assert [one for one in told if not one.startswith("fan_in_fan_out")] == []  # said wherever a model has both kinds of layers
    moved, missed = ((outputs(one) - outputs(model)).norm() for one in (seeded(make), adapted))
    assert moved > 1e-3 * outputs(model).norm()
    assert missed < 1e-3 * moved
    config: dict[str, Any] = json.loads((work / "lora" / "adapter_config.json").read_text())
    return config


@pytest.mark.parametrize("chosen", [anything, matrices])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fine_tune_comes_back(family: str, chosen: Callable[[str], bool], tmp_path: Path) -> None:
    extracted(FAMILIES[family], chosen, tmp_path)


@pytest.mark.parametrize("parts", [("q_lin",), ("q_lin", "classifier.weight"), ("q_lin", "pre_classifier.bias")])
def test_heads_that_peft_takes_by_the_end_of_their_name_are_saved(parts: tuple[str, ...], tmp_path: Path) -> None:
    config = extracted(FAMILIES["distilbert"], lambda name: any(part in name for part in parts), tmp_path)
    assert config["modules_to_save"] == ["classifier", "pre_classifier"]


def test_norms_that_peft_takes_by_the_end_of_their_name_are_saved(tmp_path: Path) -> None:
    """Of a bare model: norm is also the end of layers.0.input_layernorm."""
    config = extracted(FAMILIES["llama-bare"], lambda name: "q_proj" in name or name == "norm.weight", tmp_path)
    assert len(config["modules_to_save"]) == 5


def test_norms_with_names_of_tensorflow_are_saved_under_those_in_memory(tmp_path: Path) -> None:
    esm = of("EsmForMaskedLM", "EsmConfig", **BERT, pad_token_id=0, mask_token_id=4)
    config = extracted(esm, lambda name: name != "lm_head.bias", tmp_path)
    assert "esm.encoder.layer.0.LayerNorm" in config["modules_to_save"]


def test_an_output_whose_name_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    """MobileBERT's has a part of its own beside the part that is the embedding."""
    sizes = {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1}
    make = of("MobileBertForMaskedLM", "MobileBertConfig", **BERT, **sizes)
    with pytest.raises(UnextractableError) as caught:
        extracted(make, anything, tmp_path)
    assert [finding.rule for finding in caught.value.findings] == ["tied-head-unknown"]
