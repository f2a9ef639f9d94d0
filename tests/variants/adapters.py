"""Adapters as tables of tensors, without bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.operations.bounded_regex import slow_matcher
from registry.variants.anatomy import Reading
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy

PREFIX = "base_model.model."


def tensor(name: str, *shape: int, dtype: str = "F32") -> TensorSpec:
    return TensorSpec(f"{PREFIX}{name}", dtype, shape)


def pair(path: str, rank: int = 8, inputs: int = 64, outputs: int = 32) -> list[TensorSpec]:
    return [tensor(f"{path}.lora_A.weight", rank, inputs), tensor(f"{path}.lora_B.weight", outputs, rank)]


def read(tensors: Iterable[TensorSpec], peft_type: str = "LORA", **config: Any) -> Reading:
    return read_anatomy(AdapterConfig({"peft_type": peft_type, **config}), list(tensors), Patterns(slow=slow_matcher()))


def rules(reading: Reading) -> list[str]:
    return [one.rule for one in reading.findings]


def found(reading: Reading, rule: str) -> Finding:
    """The one finding of the rule; every finding says what to do."""
    (one,) = (one for one in reading.findings if one.rule == rule)
    assert one.fix
    return one
