"""Merging where adapter and base spell a module differently: found, and refused by name where the base holds it otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import connect
from registry.errors import UnmergeableError


def base(into: Path, model_type: str, architecture: str, tensors: dict[str, Tensor]) -> Path:
    into.mkdir()
    save_file(tensors, into / "model.safetensors")
    (into / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    return into


def adapter(into: Path, target: str, rows: int, *, task: str | None) -> Path:
    into.mkdir()
    factors = {f"base_model.model.{target}.lora_A.weight": torch.ones(2, 8)}
    factors[f"base_model.model.{target}.lora_B.weight"] = torch.ones(rows, 2)
    save_file(factors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [target], "task_type": task}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ("vit.encoder.layer.0.attention.attention.query", "vit.layers.0.attention.q_proj"),
        ("vit.layers.0.attention.q_proj", "vit.encoder.layer.0.attention.attention.query"),
    ],
)
def test_the_other_spelling_is_the_same_weight(said: str, held: str, tmp_path: Path) -> None:
    weight = torch.arange(64.0).reshape(8, 8)
    on = base(tmp_path / "base", "vit", "ViTForImageClassification", {f"{held}.weight": weight})
    one = adapter(tmp_path / "adapter", said, 8, task=None)
    connect(tmp_path / "registry").merge(on, [one], tmp_path / "out", device="cpu")
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")[f"{held}.weight"], weight + 2)


def test_one_expert_of_a_stack_is_refused_by_name(tmp_path: Path) -> None:
    stack = {"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(4, 12, 8)}
    on = base(tmp_path / "base", "mixtral", "MixtralForCausalLM", stack)
    target = "model.layers.0.block_sparse_moe.experts.2.w1"
    one = adapter(tmp_path / "adapter", target, 6, task="CAUSAL_LM")
    with pytest.raises(UnmergeableError, match=target):
        connect(tmp_path / "registry").merge(on, [one], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
