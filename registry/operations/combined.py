"""What is asked of a combination, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.domain.version import Version
from registry.operations.ingredients import Subject
from registry.plans.combining import LINEAR


@dataclass(frozen=True, slots=True)
class CombineRequest:
    """``method`` is ``linear`` or a key of METHODS. ``rank`` is the most that a layer keeps, ``energy`` the least share of Σσ² it
    has to; without either the weighted sum is exact. ``density`` is the share of elements that some methods keep, ``dtype``
    safetensors' name, None for the widest of the inputs; ``kind`` is how the lineage calls the parents; ``max_bytes`` the most that
    the file of weights may have."""

    adapters: Sequence[tuple[Subject, float]]
    method: str = LINEAR
    rank: int | None = None
    energy: float | None = None
    density: float = 0.5
    seed: int = 0
    dtype: str | None = None
    kind: str = "combined-from"
    max_bytes: int | None = None

    @property
    def is_exact(self) -> bool:
        return self.method == LINEAR and self.rank is None and self.energy is None and self.max_bytes is None


@dataclass(frozen=True, slots=True)
class CombinedLayer:
    """``discarded`` and ``error`` are relative to the norm of the exact sum: what the truncation leaves away, and how far what
    is stored is from the sum."""

    path: str
    rank: int
    exact_rank: int
    norm: float
    discarded: float
    error: float

    def document(self) -> dict[str, object]:
        return {
            "path": self.path,
            "rank": self.rank,
            "exact_rank": self.exact_rank,
            "norm": self.norm,
            "discarded": self.discarded,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Combined:
    """``discarded`` and ``error`` are of all layers together, relative to ‖Δ‖ of the exact sum; ``bytes`` is the size of the file
    of weights."""

    directory: str | None
    parents: tuple[tuple[str, float], ...]
    layers: tuple[CombinedLayer, ...]
    norm: float
    discarded: float
    error: float
    bytes: int
    findings: tuple[Finding, ...]
    version: Version | None = None

    def document(self) -> dict[str, object]:
        """``combine --json``. Keys are only ever added."""
        return {
            "directory": self.directory,
            "version": self.version.reference if self.version is not None else None,
            "adapters": [{"name": name, "weight": weight} for name, weight in self.parents],
            "norm": self.norm,
            "discarded": self.discarded,
            "error": self.error,
            "bytes": self.bytes,
            "layers": [layer.document() for layer in self.layers],
            "findings": [finding.document() for finding in self.findings],
        }
