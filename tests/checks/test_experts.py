"""Fused experts whose layout cannot be told apart are said, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from registry.checks.table import RULES
from registry.domain.base_model import BaseModelId, BaseModelSpec
from tests.checks.bases import HIDDEN, base, noticed, subject
from tests.variants.adapters import pair

EXPERTS = "model.layers.0.mlp.experts"
LAYOUT = "experts-layout-ambiguous"
UNSLOTH = BaseModelId("acme/tiny", raw="unsloth/tiny-bnb-4bit")
ACME = BaseModelId("acme/tiny", raw="acme/tiny")


def on(shape: tuple[int, int, int] = (4, 48, 64)) -> BaseModelSpec:
    return base({f"{EXPERTS}.gate_up_proj": shape}, model_type="made-up")


@pytest.mark.parametrize(
    ("trained_on", "rank", "config", "said"),
    [
        (UNSLOTH, 8, {}, [LAYOUT]),
        (UNSLOTH, 8, {"lora_B_layout": "expert_fastest"}, []),
        (UNSLOTH, 1, {}, []),  # one column an expert has one order
        (ACME, 8, {}, []),
    ],
)
def test_who_packs_the_other_way_round(
    trained_on: BaseModelId, rank: int, config: dict[str, Any], said: list[str]
) -> None:
    tensors = pair(EXPERTS, rank=4 * rank, inputs=64, outputs=48)
    fields = {"target_parameters": ["experts.gate_up_proj"], "r": rank, **config}
    assert noticed(subject(tensors, on(), trained_on=trained_on, **fields)) == said


@pytest.mark.parametrize(
    ("shape", "version", "said"),
    [
        ((4, 64, 64), None, [LAYOUT]),
        ((4, 64, 64), "0.19.1", []),
        ((4, 64, 64), "0.20.0", []),
        ((4, 48, 64), None, []),
    ],
)
def test_square_experts_need_a_version(shape: tuple[int, int, int], version: str | None, said: list[str]) -> None:
    tensors = pair(EXPERTS, rank=4 * 8, inputs=64, outputs=shape[1])
    fields = {"target_parameters": ["experts.gate_up_proj"], **({"peft_version": version} if version else {})}
    assert noticed(subject(tensors, on(shape), **fields)) == said


@pytest.mark.parametrize(
    ("rows", "config", "said"),
    [
        (4 * 8, {}, []),
        (8 * 8, {}, ["wrong-shape"]),  # of twice as many experts
        (2 * 8, {}, ["wrong-shape"]),
        (4 * 4, {"rank_pattern": {"gate_up_proj": 4}}, []),
        (4 * 8, {"rank_pattern": {"gate_up_proj": 4}}, ["wrong-shape"]),
    ],
)
def test_the_factors_are_for_as_many_experts_as_the_base_has(rows: int, config: dict[str, Any], said: list[str]) -> None:
    tensors = pair(EXPERTS, rank=rows, inputs=64, outputs=48)
    one = subject(tensors, on(), target_parameters=["experts.gate_up_proj"], peft_version="0.21.2", **config)
    assert noticed(one) == said


def test_a_bare_matrix_has_the_rank_of_the_config() -> None:
    router = base({"model.layers.0.mlp.gate.weight": (4, 64)}, model_type="made-up")
    for rank, said in ((8, []), (16, ["wrong-shape"])):
        tensors = pair("model.layers.0.mlp.gate", rank=rank, inputs=64, outputs=4)
        assert noticed(subject(tensors, router, target_parameters=["gate.weight"])) == said


def test_other_layers_of_unsloth_have_one_layout() -> None:
    path = "model.layers.0.self_attn.q_proj"
    assert noticed(subject(pair(path, inputs=HIDDEN, outputs=HIDDEN), trained_on=UNSLOTH)) == []


def test_it_is_listed() -> None:
    assert LAYOUT in {rule.id for rule in RULES}
