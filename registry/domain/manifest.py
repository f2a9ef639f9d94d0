"""The immutable document that *is* a version.

It is a function of what was pushed and of nothing else: no name, no time, no opinion of this program about the
content. So the same directory pushed twice, or under two names, is the same manifest, and a rule that changes its
mind does not change an identity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TypeVar

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.lineage import LineageEdge
from registry.domain.paths import require_apart, require_plain
from registry.domain.tensors import TensorSpec
from registry.errors import CorruptionError, InvalidInputError

T = TypeVar("T")

SCHEMA = "adapter-registry/manifest/1"

#: What stands where an adapter's PEFT type would, for a checkpoint that adapters were merged into.
MERGED = "MERGED"


class FileRole(StrEnum):
    SERVED = "served"  #: part of the bundle that engines and PEFT load
    SIDECAR = "sidecar"  #: kept beside it: training records, the base's config.json


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A kept file: its path below the adapter's directory (POSIX separators), and its bytes by digest. Whoever describes it, this
    is where it is put one day: raises InvalidInputError for a path that leads elsewhere."""

    path: str
    digest: Digest
    size: int
    role: FileRole = FileRole.SERVED

    def __post_init__(self) -> None:
        require_plain(self.path)


@dataclass(frozen=True, slots=True)
class Target:
    """A base module (or fused parameter) that the adapter changes, by its full path without ``base_model.model.``.

    ``rank`` comes from the tensors (per expert for fused experts), ``scaling`` is what multiplies the delta: α/r, or
    α/√r for rsLoRA. Both are None where the method has none, or where it could not be found out.
    """

    path: str
    rank: int | None = None
    alpha: float | None = None
    scaling: float | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Manifest:
    """See the module. ``absent_targets`` are names the config asks for and no tensor has; ``extra_modules`` are modules
    saved whole (``modules_to_save``, heads, resized embeddings, replaced biases); ``base_change`` names the
    initialisation that changed the base itself (``pissa``), which makes the tensors no plain delta.

    What cannot be read again is not made: raises InvalidInputError for files that cannot lie side by side."""

    peft_type: str
    variant: str
    base_model: BaseModelId
    task_type: str | None
    targets: tuple[Target, ...]
    tensors: tuple[TensorSpec, ...]
    tensor_identity: Digest
    files: tuple[FileEntry, ...]
    extra_modules: tuple[str, ...] = ()
    absent_targets: tuple[str, ...] = ()
    base_change: str | None = None
    peft_version: str | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    lineage: tuple[LineageEdge, ...] = ()

    def __post_init__(self) -> None:
        require_apart([entry.path for entry in self.files])

    @cached_property
    def canonical_bytes(self) -> bytes:
        """JSON with sorted keys, no spaces and ASCII only: equal manifests have equal bytes, on any machine."""
        return json.dumps(_document(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.canonical_bytes)

    @property
    def rank(self) -> int | None:
        return commonest(target.rank for target in self.targets)

    @property
    def alpha(self) -> float | None:
        return commonest(target.alpha for target in self.targets)

    @property
    def scaling(self) -> float | None:
        return commonest(target.scaling for target in self.targets)

    @property
    def target_modules(self) -> list[str]:
        """The last components of the paths, each once, sorted: what people call the targets."""
        return sorted({target.name for target in self.targets})

    @property
    def layers(self) -> list[int]:
        """The layer numbers touched: the first number in each target's path."""
        found = (next((part for part in target.path.split(".") if part.isdecimal()), None) for target in self.targets)
        return sorted({int(part) for part in found if part is not None})

    @property
    def parents(self) -> list[str]:
        """Digests of the versions that it was made from, each once, sorted."""
        return sorted({edge.parent for edge in self.lineage})

    @property
    def dtype(self) -> str | None:
        return commonest(tensor.dtype for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def commonest(values: Iterable[T | None]) -> T | None:
    """The value that occurs most often, the first of those if several do; None if there is none."""
    counts = Counter(value for value in values if value is not None)
    return counts.most_common(1)[0][0] if counts else None


def parse_manifest(data: bytes) -> Manifest:
    """The inverse of ``canonical_bytes``. Raises :class:`CorruptionError` for anything this project did not write."""
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            raise CorruptionError(
                f"manifest has schema {document['schema']!r}, this version reads {SCHEMA}",
                hint="a newer adapter-registry wrote it: upgrade",
            )
        return Manifest(
            peft_type=document["peft_type"],
            variant=document["variant"],
            base_model=BaseModelId(**document["base_model"]),
            task_type=document["task_type"],
            targets=tuple(Target(*row) for row in document["targets"]),
            tensors=tuple(_tensor(*row) for row in document["tensors"]),
            tensor_identity=Digest(document["tensor_identity"]),
            files=tuple(_file(*row) for row in document["files"]),
            extra_modules=tuple(document["extra_modules"]),
            absent_targets=tuple(document["absent_targets"]),
            base_change=document["base_change"],
            peft_version=document["peft_version"],
            training=dict(**document["training"]),
            lineage=tuple(LineageEdge(**edge) for edge in document["lineage"]),
        )
    except (AttributeError, InvalidInputError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CorruptionError(f"a manifest cannot be read: {error}", hint="run `adapters doctor --deep`") from error


def _file(path: str, digest: str, size: int, role: str) -> FileEntry:
    if type(size) is not int or size < 0:
        raise ValueError(f"{path!r:.200} of {size!r:.40} bytes is no file of a version")
    return FileEntry(path, Digest(digest), size, FileRole(role))


def _tensor(name: str, dtype: str, shape: Sequence[int], start: int, end: int) -> TensorSpec:
    if type(name) is not str or type(dtype) is not str:
        raise TypeError(f"{name!r:.80} of type {dtype!r:.80} is no tensor")
    return TensorSpec(name, dtype, tuple(shape), start, end)


def _document(manifest: Manifest) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "peft_type": manifest.peft_type,
        "variant": manifest.variant,
        "base_model": manifest.base_model.document(),
        "task_type": manifest.task_type,
        "targets": [[target.path, target.rank, target.alpha, target.scaling] for target in manifest.targets],
        "tensors": [
            [tensor.name, tensor.dtype, list(tensor.shape), tensor.start, tensor.end] for tensor in manifest.tensors
        ],
        "tensor_identity": manifest.tensor_identity,
        "files": [[entry.path, entry.digest, entry.size, entry.role.value] for entry in manifest.files],
        "extra_modules": list(manifest.extra_modules),
        "absent_targets": list(manifest.absent_targets),
        "base_change": manifest.base_change,
        "peft_version": manifest.peft_version,
        "training": manifest.training,
        "lineage": [edge.document() for edge in manifest.lineage],
    }
