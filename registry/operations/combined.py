"""What is asked of a combination, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.domain.finding import Finding
from registry.domain.names import AdapterName
from registry.domain.version import Version
from registry.errors import InvalidInputError
from registry.operations.ingredients import Subject
from registry.plans.combining import Method
from registry.plans.merging import require_float
from registry.plans.results import Layer


@dataclass(frozen=True, slots=True)
class CombineRequest:
    """The result goes to the directory ``into``, which must not exist or be empty, is stored as the next version of ``name``, or
    both. ``dtype`` is safetensors' name, None for the widest of the inputs, and at least F32 for what is not exact; ``kind`` is how
    the lineage calls the parents.

    Raises InvalidInputError."""

    adapters: Sequence[tuple[Subject, float]]
    method: Method
    into: Path | None = None
    name: AdapterName | None = None
    dtype: str | None = None
    kind: str = "combined-from"

    def __post_init__(self) -> None:
        require_float(self.dtype)
        if self.into is None and self.name is None:
            raise InvalidInputError(
                "the result would be neither written nor stored",
                code="no-place",
                hint="give a directory, a name, or both",
            )


@dataclass(frozen=True, slots=True)
class Combined:
    """``discarded`` and ``error`` are of all layers together, relative to ‖Δ‖ of the exact sum; ``dtype`` is safetensors' name of
    the type of all factors, ``bytes`` the size of the file of weights."""

    directory: str | None
    parents: tuple[tuple[str, float], ...]
    layers: tuple[Layer, ...]
    norm: float
    discarded: float
    error: float
    dtype: str
    bytes: int
    findings: tuple[Finding, ...]
    version: Version | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Its directory, its version, or both."""
        version = self.version.reference if self.version is not None else None
        return tuple(place for place in (self.directory, version) if place is not None)

    def document(self) -> dict[str, object]:
        """``combine --json``. Keys are only ever added."""
        return {
            "directory": self.directory,
            "version": self.version.reference if self.version is not None else None,
            "adapters": [{"name": name, "weight": weight} for name, weight in self.parents],
            "norm": self.norm,
            "discarded": self.discarded,
            "error": self.error,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "layers": [layer.document() for layer in self.layers],
            "findings": [finding.document() for finding in self.findings],
        }
