"""A method without an anatomy: of a newer PEFT, or of somebody's fork. It is stored and found, and not understood."""

from __future__ import annotations

from collections.abc import Sequence

from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.anatomy import PatternMatcher, Reading
from registry.variants.extras import without_base_layer
from registry.variants.findings import warning
from registry.variants.lora_checks import zero_size
from registry.variants.tensor_names import PREFIX


def read_unknown(config: AdapterConfig, tensors: Sequence[TensorSpec], _patterns: PatternMatcher) -> Reading:
    """The targets are the modules above the tensors that a list in ``target_modules`` names; no more is claimed."""
    asked = config.names("target_modules")
    names = set(asked) if isinstance(asked, tuple) else set()
    targets = {path: None for spec in tensors for path in _ancestors(spec.name) if _is_named(path, names)}
    return Reading(
        variant=config.peft_type.lower(),
        targets=tuple(Target(path) for path in targets),
        findings=(
            *zero_size(tensors),
            warning(
                "method-not-understood",
                f"peft_type is {config.peft_type!r:.80}, which is no method of PEFT 0.21: the adapter is recorded, and its "
                "tensors are not understood",
                where="peft_type",
                fix="correct peft_type if it is misspelt; otherwise ranks and scalings stay unknown, it can be checked "
                "against no base, and not be merged",
            ),
        ),
    )


def _ancestors(name: str) -> list[str]:
    parts = without_base_layer(name.removeprefix(PREFIX)).split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _is_named(path: str, names: set[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)
