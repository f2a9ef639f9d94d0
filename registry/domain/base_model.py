"""The frozen checkpoint an adapter belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from registry.domain.digest import Digest
from registry.errors import CorruptionError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class BaseModelId:
    """``id`` is the canonical repository (None if nobody can know), ``raw`` what the adapter's config said, verbatim.

    ``revision`` is the base's, not the adapter's. ``fingerprint`` is the digest of the base's shape table, once known.
    """

    id: str | None
    revision: str | None = None
    raw: str | None = None
    fingerprint: str | None = None

    @property
    def name(self) -> str | None:
        return self.id or self.raw

    def document(self) -> dict[str, str | None]:
        return {"id": self.id, "revision": self.revision, "raw": self.raw, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class BaseAliases:
    """What a registry was told of other names for bases: other name → canonical name. They are compared without case."""

    names: Mapping[str, str]

    def canonical(self, name: str) -> str:
        """The name itself, if it is no other name."""
        return self._by_key.get(name.lower(), name)

    @cached_property
    def _by_key(self) -> Mapping[str, str]:
        return {name.lower(): canonical for name, canonical in self.names.items()}


class ModuleKind(StrEnum):
    LINEAR = "linear"
    CONV1D = "conv1d"  #: a linear layer stored (in, out): GPT-2's
    EMBEDDING = "embedding"
    CONV = "conv"
    EXPERTS = "experts"  #: one 3-D parameter for all experts
    PACKED = "packed"  #: quantised: what is stored does not show the shape
    VIEW = "view"  #: rows of another module, or of several, under the name of another layout
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
class StoredBase:
    """A base that a registry knows: ``digest`` is that of its :class:`BaseModelSpec`, a blob."""

    id: BaseModelId
    digest: Digest


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """A base model without its weights. ``fingerprint`` says "same shapes"; ``weights_fingerprint`` "same numbers".

    ``layers`` is how many layers the model has where the checkpoint holds more: those that predict further tokens, which are
    loaded into nothing. None where it holds no more.
    """

    id: BaseModelId
    model_type: str | None
    architectures: tuple[str, ...]
    modules: tuple[ModuleSpec, ...]
    is_tied: bool
    vocabulary: int | None
    fingerprint: Digest
    weights_fingerprint: Digest | None = None
    is_quantized: bool = False
    layers: int | None = None

    @property
    def canonical_bytes(self) -> bytes:
        """JSON that :func:`parse_base_model_spec` reads back; equal specs have equal bytes."""
        document = {
            "schema": SCHEMA,
            "id": self.id.document(),
            "model_type": self.model_type,
            "architectures": self.architectures,
            "modules": [[module.path, module.kind.value, module.shape, module.has_bias] for module in self.modules],
            "is_tied": self.is_tied,
            "vocabulary": self.vocabulary,
            "fingerprint": self.fingerprint,
            "weights_fingerprint": self.weights_fingerprint,
            "is_quantized": self.is_quantized,
            **({"layers": self.layers} if self.layers is not None else {}),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_base_model_spec(data: bytes) -> BaseModelSpec:
    """Raises :class:`CorruptionError` for anything this project did not write."""
    try:
        document = json.loads(data)
        if document.pop("schema") != SCHEMA:
            raise CorruptionError(
                "a base model was described by a newer adapter-registry",
                hint="upgrade, or `adapters base add` it again",
            )
        modules = tuple(
            ModuleSpec(path, ModuleKind(kind), None if shape is None else tuple(shape), has_bias)
            for path, kind, shape, has_bias in document.pop("modules")
        )
        weights = document.pop("weights_fingerprint")
        return BaseModelSpec(
            id=BaseModelId(**document.pop("id")),
            architectures=tuple(document.pop("architectures")),
            modules=modules,
            fingerprint=Digest(document.pop("fingerprint")),
            weights_fingerprint=Digest(weights) if weights else None,
            **document,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptionError(
            f"the description of a base model cannot be read: {error}", hint="`adapters base add` it again"
        ) from error
