"""Tied embeddings by architecture: where the other side is written, and what cannot be taken apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from tests.oracle import merge_oracle as oracle
from tests.oracle.merge_oracle import ROUNDING, apart, config_of, loaded, logits, merged, refusal, tensors_of

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


_TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
_GPT = {"vocab_size": 64, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
_BERT = {key: value for key, value in _TEXT.items() if key not in {"num_key_value_heads", "head_dim"}}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def _of_two(kind: str, text: str, vision: str, **options: Any) -> Callable[[], Any]:
    def config() -> Any:
        parts = {"text_config": getattr(hf, text)(**_TEXT), "vision_config": getattr(hf, vision)(**_VISION)}
        return getattr(hf, kind)(**parts, image_token_id=60, tie_word_embeddings=True, **options)

    return config


def _plain(kind: str, sizes: dict[str, Any]) -> Callable[[], Any]:
    return lambda: getattr(hf, kind)(**sizes)


#: Class → its config, and what the output embedding is called on disk.
HEADS: dict[str, tuple[Callable[[], Any], str]] = {
    "Qwen3ForCausalLM": (_plain("Qwen3Config", _TEXT), "lm_head"),
    "Gemma3ForCausalLM": (_plain("Gemma3TextConfig", _TEXT), "lm_head"),
    "GPT2LMHeadModel": (_plain("GPT2Config", _GPT), "lm_head"),
    "GPTNeoXForCausalLM": (_plain("GPTNeoXConfig", _BERT), "embed_out"),
    "BloomForCausalLM": (
        _plain("BloomConfig", {"vocab_size": 64, "hidden_size": 16, "n_layer": 1, "n_head": 2}),
        "lm_head",
    ),
    "OpenAIGPTLMHeadModel": (_plain("OpenAIGPTConfig", _GPT), "lm_head"),
    "BertForMaskedLM": (_plain("BertConfig", _BERT), "cls.predictions.decoder"),
    "RobertaForMaskedLM": (_plain("RobertaConfig", _BERT), "lm_head.decoder"),
    "ElectraForMaskedLM": (_plain("ElectraConfig", {**_BERT, "embedding_size": 16}), "generator_lm_head"),
    "AlbertForMaskedLM": (_plain("AlbertConfig", {**_BERT, "embedding_size": 16}), "predictions.decoder"),
    "ModernBertForMaskedLM": (_plain("ModernBertConfig", {**_BERT, "cls_token_id": 1, "sep_token_id": 2}), "decoder"),
    "LlavaForConditionalGeneration": (
        _of_two("LlavaConfig", "LlamaConfig", "CLIPVisionConfig"),
        "language_model.lm_head",
    ),
    "PaliGemmaForConditionalGeneration": (
        _of_two("PaliGemmaConfig", "GemmaConfig", "SiglipVisionConfig", projection_dim=16),
        "language_model.lm_head",
    ),
    "Gemma3ForConditionalGeneration": (
        _of_two("Gemma3Config", "Gemma3TextConfig", "SiglipVisionConfig", mm_tokens_per_image=4),
        "language_model.lm_head",
    ),
}


def test_the_other_side_is_written_under_its_name(tmp_path: Path) -> None:
    """A LoRA of either side alone, for every architecture with a name of its own for the output, and for text parts of others."""
    for name, (config, head) in HEADS.items():
        kind = getattr(hf, name)
        torch.manual_seed(0)
        first = kind(config()).eval()
        with torch.no_grad():  # biases that are not zero
            for parameter in first.parameters():
                parameter += 0.1 * torch.randn_like(parameter) if parameter.dim() == 1 else 0
        base = oracle.save_base(first, tmp_path / name / "base")
        assert f"{head}.weight" not in tensors_of(base)
        modules = {id(module): path for path, module in first.named_modules()}
        sides = [modules[id(side)] for side in (first.get_input_embeddings(), first.get_output_embeddings())]
        for number, side in enumerate(sides):
            place = tmp_path / name / f"{number}"
            wrapped = get_peft_model(kind.from_pretrained(base), LoraConfig(r=2, target_modules=[side]))
            oracle.perturb(wrapped)
            adapter = oracle.save_adapter(wrapped, place / "adapter")
            out = merged(base, adapter, place / "out")
            assert f"{head}.weight" in out, (name, side)
            told = config_of(place / "out")
            assert told["tie_word_embeddings"] is False
            assert told.get("text_config", told)["tie_word_embeddings"] is False
            assert apart(logits(loaded(kind, place / "out")), logits(wrapped)) < ROUNDING, (name, side)


def test_what_encoder_and_decoder_share_is_not_merged(tmp_path: Path) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    bart = hf.BartConfig(vocab_size=64, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, **sizes)
    t5 = hf.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    for name, config in {
        "BartForConditionalGeneration": bart,
        "MarianMTModel": None,
        "T5ForConditionalGeneration": t5,
    }.items():
        kind = getattr(hf, name)
        config = config or hf.MarianConfig(**{**bart.to_diff_dict(), "pad_token_id": 0, "model_type": "marian"})
        torch.manual_seed(0)
        base = oracle.save_base(kind(config), tmp_path / name / "base")
        for target in ("shared", "embed_tokens", "lm_head"):
            model = kind.from_pretrained(base)
            adapter = oracle.train(model, LoraConfig(r=2, target_modules=[target]), tmp_path / name / target)
            assert refusal(base, adapter, tmp_path / name / "out") == "tied-encoder-decoder", (name, target)
