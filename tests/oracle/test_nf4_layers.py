"""Which layers ``--base-view nf4`` is about: those that bitsandbytes packs when a model is loaded for QLoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import get_keys_to_not_convert

from registry.domain.base_model import BaseModelId
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.tensors import TensorSpec
from registry.formats.model_config import ModelConfig
from registry.operations.know_base import spec_of
from registry.plans.nf4_layers import rounded_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]


def rounded(config: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtype: str = "BF16") -> frozenset[str]:
    tensors = tuple(TensorSpec(name, dtype, shape) for name, shape in shapes.items())
    base = Checkpoint(Path(), config, (Shard(Path("model.safetensors"), tensors, {}, 0, 0),))
    return rounded_weights(base, spec_of(BaseModelId(None), ModelConfig(config), tensors))


def small(cls: Any, config: Any, **changes: Any) -> tuple[Any, Any]:
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    return cls, config(**{**sizes, **changes})


MODELS = {
    "llama": small(hf.LlamaForCausalLM, hf.LlamaConfig),
    "tied": small(hf.LlamaForCausalLM, hf.LlamaConfig, tie_word_embeddings=True),
    "classifier": small(hf.LlamaForSequenceClassification, hf.LlamaConfig, num_labels=3),
    "backbone": small(hf.LlamaModel, hf.LlamaConfig),
    "qwen2": small(hf.Qwen2ForCausalLM, hf.Qwen2Config),
    "gemma3": small(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, head_dim=8),
    "phi3": small(hf.Phi3ForCausalLM, hf.Phi3Config, pad_token_id=0),
    "neox": small(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig),
    "opt": small(hf.OPTForCausalLM, hf.OPTConfig, ffn_dim=24, word_embed_proj_dim=16),
    "bert": small(hf.BertForMaskedLM, hf.BertConfig),
    "fused-experts": small(hf.MixtralForCausalLM, hf.MixtralConfig, num_local_experts=2),
    "gpt-oss": small(hf.GptOssForCausalLM, hf.GptOssConfig, num_local_experts=2, head_dim=8),
    "t5": (
        hf.T5ForConditionalGeneration,
        hf.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2),
    ),
    "whisper": (
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig(vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                         decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, pad_token_id=0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_are_those_that_transformers_would_replace(name: str) -> None:
    cls, config = MODELS[name]
    with torch.device("meta"):
        model = cls(config)
    tied = set(model.all_tied_weights_keys)
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters() if name not in tied}
    left_out = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]
    how = hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    replaced = replace_with_bnb_linear(model, modules_to_not_convert=left_out, quantization_config=how)
    expected = {f"{path}.weight" for path, one in replaced.named_modules() if type(one).__name__ == "Linear4bit"}
    assert expected
    assert rounded({**config.to_dict(), "architectures": [cls.__name__]}, shapes) == expected


def test_experts_on_disk_are_the_linear_layers_they_are_stored_as() -> None:
    layer = "model.layers.0.block_sparse_moe"
    linear = {f"{layer}.gate.weight": (4, 16), f"{layer}.experts.0.w1.weight": (24, 16)}
    assert rounded({"model_type": "mixtral"}, linear) == linear.keys()


def test_a_router_of_a_class_of_its_own_is_none() -> None:
    layer = "model.layers.0.mlp"
    corrected = {f"{layer}.gate.weight": (4, 16), f"{layer}.gate.e_score_correction_bias": (4,)}
    assert rounded({"model_type": "deepseek_v3"}, {**corrected, f"{layer}.up_proj.weight": (24, 16)}) == {
        f"{layer}.up_proj.weight"
    }
    beside = {f"{layer}.router.weight": (4, 16), f"{layer}.experts.gate_up_proj": (4, 16, 48)}
    assert rounded({"model_type": "gpt_oss"}, beside) == frozenset()


def test_what_bitsandbytes_cannot_pack_is_left_alone() -> None:
    shapes = {"model.layers.0.mlp.up_proj.weight": (24, 16)}
    assert rounded({}, shapes, "F32") == shapes.keys()
    assert rounded({}, shapes, "F64") == rounded({}, shapes, "F8_E4M3") == frozenset()
    attention = {"layers.0.attn.in_proj_weight": (48, 16), "layers.0.attn.out_proj.weight": (16, 16)}
    assert rounded({}, attention) == frozenset()


@pytest.mark.parametrize(
    ("left_out", "stays"),
    [
        ("lm_head", set()),
        ("up_proj", {"model.layers.1.up_proj.weight", "model.layers.11.up_proj.weight"}),
        ("model.layers.1", {"model.layers.1.up_proj.weight"}),
        ("layers.11", {"model.layers.11.up_proj.weight"}),
        ("model.layers.1.up_proj", {"model.layers.1.up_proj.weight"}),
        ("layers.[0-9]+", set()),
    ],
)
def test_a_module_is_left_out_by_name_and_never_by_a_pattern(left_out: str, stays: set[str]) -> None:
    shapes = {f"model.layers.{number}.up_proj.weight": (24, 16) for number in (1, 11)}
    config = {"quantization_config": {"llm_int8_skip_modules": [left_out]}}
    assert rounded(config, shapes) == shapes.keys() - stays
