"""A weight that adapters name differently is one target, as it is for PEFT; what PEFT has only apart is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import OPTConfig, OPTForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from registry.connect import connect
from registry.errors import RejectedError, UncombinableError
from tests.oracle import tiny_models as tiny
from tests.oracle.test_combine_against_peft import LM, changes, same, total, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROUTER: dict[str, Any] = {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"], **LM}
EXPERTS: dict[str, Any] = {"target_modules": [], "target_parameters": ["experts.down_proj"], "r": 3}
SIZES: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def qwen3_moe() -> nn.Module:
    sizes = {"num_experts": 4, "moe_intermediate_size": 12, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 24}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **sizes, num_experts_per_tok=2))


def opt() -> nn.Module:
    return OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=32))


def as_modules(adapter: Path, names: list[str]) -> Path:
    """As transformers before 5 had it: the same tensors, with the weight's module among ``target_modules``."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "target_modules": names, "target_parameters": None}))
    return adapter


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"method": "ties"}])
@pytest.mark.parametrize("make", [tiny.mixtral, qwen3_moe])
def test_a_router_as_module_and_as_parameter_is_one(
    make: Callable[[], nn.Module], options: dict[str, Any], tmp_path: Path
) -> None:
    one = train(make, tmp_path / "one", 1, {**ROUTER, "r": 4})
    other = as_modules(train(make, tmp_path / "other", 2, {**ROUTER, "r": 3}), ["q_proj", "gate"])
    registry = connect(tmp_path / "registry")
    for number, parts in enumerate([[(one, 0.7), (other, -0.3)], [(other, -0.3), (one, 0.7)]]):
        done = registry.combine(parts, tmp_path / f"both{number}", **options)
        assert len(done.layers) == 4
        found = changes(make, tmp_path / f"both{number}", silently=True)
        wanted = total([(changes(make, adapter), weight) for adapter, weight in parts])
        assert found.keys() == wanted.keys()
        if not options:
            same(found, wanted)


def test_a_linear_layer_as_module_and_as_parameter_is_one(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, LM)
    options = {"target_modules": [], "target_parameters": ["self_attn.q_proj.weight"], "r": 3, **LM}
    other = train(tiny.llama, tmp_path / "other", 2, options)
    connect(tmp_path / "registry").combine([(one, 0.7), (other, -0.3)], tmp_path / "both")
    named = {
        f"{name.removesuffix('.weight')}.weight": delta for name, delta in changes(tiny.llama, one).items()
    }
    wanted = total([(named, 0.7), (changes(tiny.llama, other), -0.3)])
    same(changes(tiny.llama, tmp_path / "both", silently=True), wanted)


#: Two adapters that PEFT loads, each by itself, and what is said of both together.
APART: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], dict[str, Any], str]] = {
    "biases of B, and experts": (tiny.ExpertBlocks, {"lora_bias": True}, EXPERTS, "lora_bias"),
    "biases of B, and an embedding": (
        opt,
        {"lora_bias": True, **LM},
        {"target_modules": ["embed_tokens", "v_proj"], **LM},
        "lora_bias",
    ),
    "Conv1D, and a parameter": (
        tiny.gpt2,
        {"target_modules": ["c_attn"], "fan_in_fan_out": True, **LM},
        {"target_modules": [], "target_parameters": ["attn.c_proj.weight"], **LM},
        "fan_in_fan_out",
    ),
    "biases of B, and the same weight": (
        opt,
        {"lora_bias": True, **LM},
        {"target_modules": [], "target_parameters": ["self_attn.q_proj.weight"], **LM},
        "lora_bias",
    ),
    "an embedding as module and as parameter": (
        tiny.llama,
        {"target_modules": ["embed_tokens"], **LM},
        {"target_modules": [], "target_parameters": ["embed_tokens.weight"], **LM},
        "embed_tokens as a module",
    ),
}


@pytest.mark.parametrize("case", APART)
def test_what_peft_has_only_apart_is_refused_before_it_is_made(case: str, tmp_path: Path) -> None:
    make, first, second, said = APART[case]
    one, other = train(make, tmp_path / "one", 1, first), train(make, tmp_path / "other", 2, second)
    for adapter in (one, other):
        changes(make, adapter)
    with pytest.raises(UncombinableError) as caught:
        connect(tmp_path / "registry").combine([one, other], tmp_path / "both")
    assert isinstance(caught.value, RejectedError)
    assert caught.value.code in {"not-in-one-adapter", "target-in-two-forms"}
    assert said in caught.value.message
    assert caught.value.hint
    assert "merge the adapters into the base" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
