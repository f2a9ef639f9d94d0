"""What a merge will write, tensor by tensor.

Every stored tensor is looked at as a matrix of rows: a convolution (out, in/groups, k…) as (out, in/groups·k…), fused experts
(E, a, b) as (E·a, b), a vector (n) as (n, 1). A change acts on a range of these rows, so that any range can be computed on
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Protocol

from registry.domain.checkpoint import Packed, Shard
from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import InvalidValueError
from registry.plans.combining import Blend

ALL = slice(None)
#: Types in which a weight can be changed.
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Factor:
    """One tensor of an adapter's file, flattened to a matrix, of which a formula gets these rows and columns; or the block
    diagonal matrix that its ``blocks`` parts, one below the other, are the blocks of."""

    spec: TensorSpec
    rows: slice = field(default_factory=lambda: ALL)
    columns: slice = field(default_factory=lambda: ALL)
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class DenseShare:
    """The delta of one adapter, scaling · up · down (out, in), and the weight it is wanted with."""

    adapter: int
    down: Factor
    up: Factor
    scaling: float
    weight: float


@dataclass(frozen=True, slots=True)
class Dense:
    """A delta that a method makes of those of several adapters. What it draws hangs on the target's path and the number of the
    expert, as in a combination."""

    blend: Blend
    path: str
    expert: int
    shares: tuple[DenseShare, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A formula of :mod:`registry.numerics.merging` over the rows ``start`` to ``stop`` of a stored tensor.

    The formula is about a weight W (out, in). The rows are its outputs from ``first`` on, with all inputs; or,
    ``transposed``, its inputs from ``first`` on, with all outputs.

    ``path`` and ``expert`` say which target of the adapter it is. A change of several adapters at once is ``dense``; its
    number is that of the first of them.
    """

    adapter: int
    formula: str
    factors: Mapping[str, Factor]
    numbers: Mapping[str, float]
    start: int
    stop: int
    transposed: bool = False
    first: int = 0
    path: str = ""
    expert: int = 0
    dense: Dense | None = None


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Single rows that are replaced: row ``indices[i]`` by row i of the tensor."""

    adapter: int
    spec: TensorSpec
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor's numbers start from: a file of the base, or of the adapter with this number."""

    shard: Shard
    spec: TensorSpec
    adapter: int | None = None

    @property
    def is_seen(self) -> bool:
        """Whether reading gives other numbers than the bytes that are stored: those of NF4."""
        return self.spec.name in self.shard.nf4

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read for it."""
        seen = self.shard.nf4.get(self.spec.name)
        return seen.files if isinstance(seen, Packed) else (self.shard.path,)


class SameNumbers(Protocol):
    """Whether two tensors (or the second's transpose) hold the same numbers: the one question that needs bytes."""

    def __call__(self, one: Origin, other: Origin, *, transposed: bool = False) -> bool: ...


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the output: the numbers of ``origin`` with the changes, stored as ``dtype``."""

    name: str
    dtype: str
    origin: Origin
    changes: tuple[Change, ...] = ()
    rows: tuple[TokenRows, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.origin.spec.shape

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns): fused experts are one below the other where a change is about one of them."""
        rows = self.shape[0] if self.shape else 1
        if len(self.shape) == 3 and any(change.stop > rows for change in self.changes):
            rows *= self.shape[1]
        return rows, prod(self.shape) // rows if rows else 0

    @property
    def is_copy(self) -> bool:
        """Whether the bytes are those of the origin."""
        return not (self.changes or self.rows or self.origin.is_seen) and self.dtype == self.origin.spec.dtype

    @property
    def bytes(self) -> int:
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class PlannedShard:
    name: str
    tensors: tuple[PlannedTensor, ...]
    metadata: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Without the header."""
        return sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """``config`` is the output's config.json, None where the base's is kept byte for byte; ``index`` the metadata of the
    shard index, None for a single file. ``adapters`` are the files of weights, in the order of their numbers."""

    shards: tuple[PlannedShard, ...]
    adapters: tuple[Shard, ...]
    config: Mapping[str, object] | None
    index: Mapping[str, object] | None
    takes_tokenizer_of: int | None = None

    @property
    def tensors(self) -> list[PlannedTensor]:
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @property
    def changed(self) -> list[PlannedTensor]:
        """Those that some adapter changes or replaces."""
        return [one for one in self.tensors if one.changes or one.rows or one.origin.adapter is not None]

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every file that is read."""
        base = dict.fromkeys(path for tensor in self.tensors for path in tensor.origin.files)
        return tuple(dict.fromkeys((*base, *(shard.path for shard in self.adapters))))


def require_float(dtype: str | None) -> None:
    """Raises InvalidValueError for what weights cannot be stored as; None leaves it to the inputs."""
    if dtype is not None and dtype not in FLOATS:
        raise InvalidValueError("type of weights", dtype, f"one of {', '.join(FLOATS)}")
