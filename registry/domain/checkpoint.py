"""A checkpoint on disk: which tensor lies in which of its files, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.domain.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file. ``tensors`` stand in the order of their bytes, which start at ``data_start`` of ``size``."""

    path: Path
    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    data_start: int
    size: int

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
