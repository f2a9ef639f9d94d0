"""A checkpoint on disk: which tensor lies in which of its files, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.domain.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Extent:
    """``count`` bytes of a file, from the byte ``start`` on."""

    path: Path
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Nested:
    """Scales that are packed themselves: a byte c stands for levels[c] · scale + ``offset``, with one float32 of
    ``scales`` for each ``block`` of them. ``levels`` are 256 numbers of float32, as bytes."""

    scales: Extent
    levels: bytes
    block: int
    offset: float


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor that bitsandbytes stored as NF4: two elements in a byte, the first in its upper half, and for each
    ``block`` of the flattened tensor a scale in float32, or in one byte if those are ``nested``."""

    codes: Extent
    scales: Extent
    block: int
    nested: Nested | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that some of its bytes lie in."""
        extents = (self.codes, self.scales, *((self.nested.scales,) if self.nested is not None else ()))
        return tuple(dict.fromkeys(extent.path for extent in extents))


@dataclass(frozen=True, slots=True)
class Rounded:
    """A tensor that is stored as numbers, of which each ``block`` is rounded to NF4 as it is read."""

    block: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file. ``tensors`` stand in the order of their bytes, which start at ``data_start`` of ``size``.

    Those named in ``nf4`` are seen through NF4: their type and shape are what reading gives, and not what is stored.
    """

    path: Path
    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    data_start: int
    size: int
    modified: int = 0
    nf4: Mapping[str, Packed | Rounded] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``config`` is config.json as it was parsed; ``index`` the metadata of ``model.safetensors.index.json``, None for a
    checkpoint in one file."""

    directory: Path
    config: Mapping[str, object]
    shards: tuple[Shard, ...]
    index: Mapping[str, object] | None = None

    def __iter__(self) -> Iterator[tuple[Shard, TensorSpec]]:
        for shard in self.shards:
            for spec in shard.tensors:
                yield shard, spec

    @property
    def bytes(self) -> int:
        return sum(shard.size for shard in self.shards)

    @property
    def unpacked_dtype(self) -> str | None:
        """The type that most of what is unpacked has; None where nothing is packed."""
        elements: Counter[str] = Counter()
        for shard, spec in self:
            if isinstance(shard.nf4.get(spec.name), Packed):
                elements[spec.dtype] += spec.elements
        return elements.most_common(1)[0][0] if elements else None
