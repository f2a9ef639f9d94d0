"""What is extracted from a fine-tuned mixture of experts gives it back: PEFT takes some module names of these families for experts
or routers, wherever they stand, and wraps a router only as a bare parameter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from peft.utils import transformers_weight_conversion as conversion
from torch import nn

from registry.connect import connect
from registry.formats.base_classes import retargeted
from tests.oracle.tiny_models import seeded

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
TOKENS = torch.tensor([[3, 1, 2, 7, 9, 4, 1, 2, 5, 6]])
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
ROUTED: dict[str, Any] = {
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def mixtral() -> nn.Module:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, num_local_experts=3))


def qwen2() -> nn.Module:
    config = transformers.Qwen2MoeConfig(**SIZES, **ROUTED, shared_expert_intermediate_size=12)
    return transformers.Qwen2MoeForCausalLM(config)


def qwen3() -> nn.Module:
    """Its first layer has no experts."""
    return transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(**SIZES, **ROUTED, head_dim=4, mlp_only_layers=[0])
    )


def deepseek() -> nn.Module:
    config = transformers.DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4}, moe_intermediate_size=8, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
        topk_group=1, first_k_dense_replace=1, kv_lora_rank=4, q_lora_rank=6, qk_rope_head_dim=4, v_head_dim=4,
        qk_nope_head_dim=4,
    )  # fmt: skip
    return transformers.DeepseekV3ForCausalLM(config)


def gpt_oss() -> nn.Module:
    config = transformers.GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, head_dim=4)
    return transformers.GptOssForCausalLM(config)


def granite() -> nn.Module:
    """Its experts are modules with a stack on disk, and parameters in memory."""
    config = transformers.GraniteMoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    return transformers.GraniteMoeForCausalLM(config)


def moved(model: nn.Module, changes: Callable[[str], bool]) -> nn.Module:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if changes(name):
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS)[0]  # type: ignore[no-any-return]


def saved(model: nn.Module, into: Path) -> Path:
    model.save_pretrained(into)  # type: ignore[operator]
    return into


def without_experts(name: str) -> bool:
    return ".experts." not in name


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[str], bool]]] = {
    "mixtral": (mixtral, without_experts),
    "mixtral-router": (mixtral, lambda name: "mlp.gate." in name),
    "qwen2-router": (qwen2, lambda name: "q_proj" in name or "mlp.gate." in name),
    "qwen2": (qwen2, without_experts),
    "qwen3-dense-layer": (qwen3, lambda name: without_experts(name) and "mlp.gate." not in name),
    "qwen3": (qwen3, without_experts),
    "deepseek-shared": (deepseek, lambda name: "shared_experts" in name),
    "deepseek": (deepseek, without_experts),
    "granite": (granite, lambda _name: True),
    "gpt-oss": (gpt_oss, without_experts),
    "gpt-oss-router-weight": (gpt_oss, lambda name: "q_proj.weight" in name or "router.weight" in name),
    "gpt-oss-biases": (gpt_oss, lambda name: "q_proj.bias" in name or "v_proj" in name or "router.weight" in name),
    "gpt-oss-router": (gpt_oss, lambda name: "q_proj" in name or "router" in name),
}


@pytest.mark.parametrize("case", CASES)
def test_all_but_the_experts_comes_back(case: str, tmp_path: Path) -> None:
    make, changes = CASES[case]
    model = moved(seeded(make), changes)
    base, other = saved(seeded(make), tmp_path / "base"), saved(model, tmp_path / "tuned")
    registry = connect(tmp_path / "registry")
    registry.extract(base, other, tmp_path / "lora", rank=32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(seeded(make), str(tmp_path / "lora"))
    assert not [str(one.message) for one in said if "adapter keys" in str(one.message) or "pattern" in str(one.message)]
    assert (logits(seeded(make)) - logits(model)).abs().max() > 1e-4
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-5)
    registry.merge(base, [tmp_path / "lora"], tmp_path / "merged")
    merged = type(model).from_pretrained(tmp_path / "merged")  # type: ignore[attr-defined]
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-5)


def test_every_family_that_peft_reads_so_is_known() -> None:
    for model_type, family in conversion._MODEL_TO_CONVERSION_PATTERN.items():
        names = conversion._MOE_TARGET_MODULE_MAPPING.get(family)
        if names and family in conversion._MOE_FUSED_TARGETS and model_type == model_type.lower():
            assert retargeted(model_type) == names.keys(), model_type


def test_a_buffer_beside_a_matrix_comes_with_it(tmp_path: Path) -> None:
    model = moved(seeded(deepseek), lambda name: "mlp.gate." in name or "q_a_proj" in name)
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.gate").e_score_correction_bias += torch.tensor([1.0, -1.0, 2.0, 0.5])  # type: ignore[operator]
    base, other = saved(seeded(deepseek), tmp_path / "base"), saved(model, tmp_path / "tuned")
    connect(tmp_path / "registry").extract(base, other, tmp_path / "lora", rank=32)
    adapted = PeftModel.from_pretrained(seeded(deepseek), str(tmp_path / "lora"))
    torch.testing.assert_close(logits(adapted), logits(model), rtol=1e-4, atol=1e-5)
