"""The frozen checkpoint an adapter belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from registry.domain.digest import Digest


@dataclass(frozen=True, slots=True)
class BaseModelId:
    """``id`` is the canonical repository (None if nobody can know), ``raw`` what the adapter's config said, verbatim.

    ``revision`` is the base's, not the adapter's. ``fingerprint`` is the digest of the base's shape table, once known.
    """

    id: str | None
    revision: str | None = None
    raw: str | None = None
    fingerprint: str | None = None

    def document(self) -> dict[str, str | None]:
        return {"id": self.id, "revision": self.revision, "raw": self.raw, "fingerprint": self.fingerprint}


class ModuleKind(StrEnum):
    LINEAR = "linear"
    CONV1D = "conv1d"  #: a linear layer stored (in, out): GPT-2's
    EMBEDDING = "embedding"
    CONV = "conv"
    EXPERTS = "experts"  #: one 3-D parameter for all experts
    PACKED = "packed"  #: quantised: what is stored does not show the shape
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module with weights. ``shape`` is the weight's as a layer means it: (out, in) for linear layers also where Conv1D
    stores (in, out); (vocabulary, dimension) for embeddings; None where it cannot be known."""

    path: str
    kind: ModuleKind
    shape: tuple[int, ...] | None
    has_bias: bool = False


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """A base model without its weights. ``fingerprint`` says "same shapes"; ``weights_fingerprint`` "same numbers"."""

    id: BaseModelId
    model_type: str | None
    architectures: tuple[str, ...]
    modules: tuple[ModuleSpec, ...]
    is_tied: bool
    vocabulary: int | None
    fingerprint: Digest
    weights_fingerprint: Digest | None = None
    is_quantized: bool = False
