"""A planned tensor, ready to be computed: its factors are in memory, and any block of its rows can be made on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from threading import Lock

import torch
from torch import Tensor

from registry.domain.tensors import TensorSpec
from registry.numerics.merging import IN, MERGERS, OUT, Merger
from registry.plans.merging import Change, Dense, Factor, PlannedTensor
from registry.transforms.blending import blended, multiplied

#: A tensor of an adapter, by the adapter's number: on the CPU, in its own type.
Load = Callable[[int, TensorSpec], Tensor]
#: A delta that is known whole.
_DENSE = Merger(lambda *, delta: delta, {"delta": (OUT, IN)}, numbers=())


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``start`` to ``stop`` of a stored tensor's matrix."""

    start: int
    stop: int


class Lazy:
    """A dense delta (out, in), in memory from the first of its rows that is asked for to the last: of fused experts only those
    of a few blocks are there at a time."""

    def __init__(self, make: Callable[[], Tensor], rows: int) -> None:
        self._make = make
        self._left = rows
        self._lock = Lock()
        self._delta: Tensor | None = None

    def take(self, rows: int) -> Tensor:
        """The whole delta, of which so many rows of the stored tensor are changed now."""
        with self._lock:
            delta = self._make() if self._delta is None else self._delta
            self._left -= rows
            self._delta = delta if self._left > 0 else None
            return delta


@dataclass(slots=True)
class Loaded:
    change: Change
    merger: Merger
    factors: Mapping[str, Tensor]
    statistic: Tensor | None = None
    dense: Lazy | None = None

    @property
    def numbers(self) -> Mapping[str, float]:
        return {name: self.change.numbers[name] for name in self.merger.numbers}


@dataclass
class Recipe:
    """``compute`` is the type of the arithmetic: float32, and float64 where the stored weight has as many digits."""

    tensor: PlannedTensor
    compute: torch.dtype
    device: torch.device
    changes: list[Loaded] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def columns(self) -> int:
        return self.tensor.matrix[1]

    @property
    def needs_statistic(self) -> bool:
        """Whether the formula has to see the whole tensor once before the first block: outputs lie across the rows."""
        return any(one.merger.statistic is not None and one.change.transposed for one in self.changes)

    def blocks(self, elements: int) -> Iterator[Block]:
        """Of about so many elements; always the same for the same tensor, so that the result is."""
        rows, columns = self.tensor.matrix
        if any(one.merger.whole and one.change.transposed for one in self.changes):
            size = rows
        else:
            size = max(1, elements // max(columns, 1))
        for start in range(0, rows, size):
            yield Block(start, min(start + size, rows))

    def look(self, weight: Tensor, block: Block) -> Tensor:
        """What this block adds to the statistics, (changes, outputs)."""
        found = []
        for one in self.changes:
            if one.merger.statistic is not None and one.change.transposed:
                found.append(one.merger.statistic(weight.mT, **self._factors(one, block), **one.numbers))
        return torch.stack(found)

    def know(self, statistics: Tensor) -> None:
        waiting = [one for one in self.changes if one.merger.statistic is not None and one.change.transposed]
        for one, statistic in zip(waiting, statistics, strict=True):
            one.statistic = statistic

    def apply(self, weight: Tensor, block: Block) -> Tensor:
        """The block (rows, columns) with all changes; ``weight`` may be overwritten."""
        for one in self.changes:
            start, stop = max(block.start, one.change.start), min(block.stop, one.change.stop)
            if start < stop:
                part = weight[start - block.start : stop - block.start]
                self._change(one, part, Block(start, stop))
        for indices, rows in self.rows:
            mine = (indices >= block.start) & (indices < block.stop)
            if bool(mine.any()):
                weight[indices[mine] - block.start] = rows[mine]
        return weight

    def _change(self, one: Loaded, part: Tensor, block: Block) -> None:
        weight = part.mT if one.change.transposed else part
        factors = self._factors(one, block)
        if one.merger.adds:
            weight.add_(one.merger.compute(**factors, **one.numbers))
            return
        if one.merger.statistic is not None:
            statistic = one.statistic
            if statistic is None:
                statistic = one.merger.statistic(weight, **factors, **one.numbers)
            factors = {**factors, "statistic": statistic}
        weight.copy_(one.merger.compute(weight, **factors, **one.numbers))

    def _factors(self, one: Loaded, block: Block) -> dict[str, Tensor]:
        """The factors of a block: cut along its outputs, or its inputs where those are the rows."""
        change = one.change
        first = change.first - change.start
        along = "in" if change.transposed else "out"
        found = {}
        factors = one.factors if one.dense is None else {"delta": one.dense.take(block.stop - block.start)}
        for role, factor in factors.items():
            for dimension, axis in enumerate(one.merger.axes[role]):
                if axis == along:
                    factor = factor.narrow(dimension, block.start + first, block.stop - block.start)
            found[role] = factor.to(self.device, self.compute)
        return found


def prepared(tensor: PlannedTensor, load: Load, device: torch.device, *, compute: torch.dtype | None = None) -> Recipe:
    """The recipe with its factors on the device, computed in ``compute`` if that is given."""
    wide = "F64" in (tensor.dtype, tensor.origin.spec.dtype)
    recipe = Recipe(tensor, compute or (torch.float64 if wide else torch.float32), device)
    for change in tensor.changes:
        if change.dense is not None:
            delta = Lazy(partial(_dense, change.dense, load), change.stop - change.start)
            recipe.changes.append(Loaded(change, _DENSE, {}, dense=delta))
            continue
        merger = MERGERS[change.formula]
        loaded = {role: load(change.adapter, factor.spec) for role, factor in change.factors.items()}
        factors: Mapping[str, Tensor]
        if merger.prepare is None:
            factors = {role: _factor(change.factors[role], one, merger.axes[role]) for role, one in loaded.items()}
        else:  # on the CPU, so that it is the same on all devices
            widened = {role: one.to(recipe.compute) for role, one in loaded.items()}
            factors = merger.prepare(**widened, **{name: change.numbers[name] for name in merger.settings})
        factors = {role: one.to(device, recipe.compute) for role, one in factors.items()}
        recipe.changes.append(Loaded(change, merger, factors))
    for rows in tensor.rows:
        values = load(rows.adapter, rows.spec).to(device, recipe.compute)
        recipe.rows.append((torch.tensor(rows.indices, device=device), values))
    return recipe


def _dense(dense: Dense, load: Load) -> Tensor:
    """On the CPU, so that it is the same on all devices."""
    axes = MERGERS["lora"].axes
    deltas = []
    for share in dense.shares:
        down, up = (
            _factor(factor, load(share.adapter, factor.spec).double(), axes[role])
            for role, factor in (("down", share.down), ("up", share.up))
        )
        deltas.append(multiplied(down, up, share.scaling))
    weights = [share.weight for share in dense.shares]
    return blended(dense.blend, deltas, weights, dense.path, dense.expert)


def _factor(factor: Factor, tensor: Tensor, axes: tuple[str, ...]) -> Tensor:
    """The matrix (or vector) that a formula means, out of a tensor as the file has it."""
    if len(axes) == 1:
        return tensor.reshape(-1)[factor.rows]
    if tensor.dim() > 2:
        tensor = tensor.reshape(tensor.shape[0], prod(tensor.shape[1:]))
    if factor.blocks > 1:
        blocks: Tensor = torch.block_diag(*tensor.chunk(factor.blocks))  # type: ignore[no-untyped-call]
        return blocks
    return tensor[factor.rows, factor.columns].contiguous()
