"""Biases that were trained and are not in the file."""

from __future__ import annotations

from typing import Any

import pytest

from registry.checks.rule import Subject
from registry.domain.tensors import TensorSpec
from tests.checks.bases import HIDDEN, base, finding, noticed, subject
from tests.variants.adapters import pair, tensor

LAYERS = {
    f"transformer.h.{layer}.{name}": shape
    for layer in range(2)
    for name, shape in {
        "attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
        "attn.c_attn.bias": (3 * HIDDEN,),
        "ln_1.weight": (HIDDEN,),
        "ln_1.bias": (HIDDEN,),
    }.items()
}
GPT = base(LAYERS, model_type="gpt2", architecture="GPT2LMHeadModel")
BARE = base({name: shape for name, shape in LAYERS.items() if "bias" not in name}, model_type="gpt2")
#: An encoder and a decoder, of which an adapter may have one.
BOTH = base(
    {f"model.{side}.layers.0.fc1.{tail}": (8, 8) if tail == "weight" else (8,)
     for side in ("encoder", "decoder") for tail in ("weight", "bias")},
    model_type="made-up",
)  # fmt: skip
FACTORS = [
    spec for n in range(2) for spec in pair(f"transformer.h.{n}.attn.c_attn", inputs=HIDDEN, outputs=3 * HIDDEN)
]
OWN = [tensor(f"transformer.h.{n}.attn.c_attn.base_layer.bias", 3 * HIDDEN) for n in range(2)]
NORMS = [tensor(f"transformer.h.{n}.ln_1.bias", HIDDEN) for n in range(2)]


def adapter(tensors: list[TensorSpec], bias: str, on: Any = GPT) -> Subject:
    return subject([*FACTORS, *tensors], on, bias=bias)


@pytest.mark.parametrize(
    ("tensors", "bias", "said"),
    [
        ([], "none", False),
        (OWN, "lora_only", False),
        ([*OWN, *NORMS], "all", False),
        ([], "lora_only", True),
        (OWN[:1], "lora_only", True),
        ([], "all", True),
        (OWN, "all", True),
        ([*OWN, *NORMS[:1]], "all", True),
    ],
)
def test_a_lost_bias_is_said(tensors: list[TensorSpec], bias: str, said: bool) -> None:
    assert ("bias-lost" in noticed(adapter(tensors, bias))) is said


def test_the_lost_one_is_named() -> None:
    assert "transformer.h.1.ln_1" in finding(adapter([*OWN, *NORMS[:1]], "all"), "bias-lost").message


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_a_base_without_biases_has_none_to_lose(bias: str) -> None:
    assert "bias-lost" not in noticed(adapter([], bias, BARE))


def test_a_class_that_is_half_of_the_base_has_half_of_its_biases() -> None:
    factors = pair("model.encoder.layers.0.fc1", inputs=8, outputs=8)
    bias = tensor("model.encoder.layers.0.fc1.base_layer.bias", 8)
    assert "bias-lost" not in noticed(subject([*factors, bias], BOTH, bias="all", task_type=None))
    assert "bias-lost" in noticed(subject(factors, BOTH, bias="all", task_type=None))
