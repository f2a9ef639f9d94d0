"""Merged weights, held against the sum in float64.

What is compared was read back from the disk. The expected value of an element is computed with the same formulas in
float64; an ulp is the distance of neighbouring numbers of the stored type at the largest of weight, delta and result.
Rounding once is 0.5. What float32's arithmetic adds goes with the size of the terms of a sum, not with what is left of them:
it is held against the largest number of the row, where it can be many ulps of a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf, sqrt
from typing import TypeVar

import torch
from torch import Tensor

from registry.domain.checkpoint import Shard
from registry.plans.merging import MergePlan, PlannedTensor
from registry.plans.results import Compared
from registry.transforms.crew import one_core_each, workers_for
from registry.transforms.recipes import Block, Recipe, prepared
from registry.transforms.streaming import loader
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.rows import read_into
from registry.weights.streams import Sources, sources

#: Rows that are looked at in one go, and elements of such a piece.
_ROWS = 16
_ELEMENTS = 1 << 20
_PIECE = 1 << 20
#: Errors of one piece among which the median is looked for.
_SOME = 4096
#: The bits of a float64's exponent, and its largest number.
_EXPONENT = 0x7FF0000000000000
_LARGEST = torch.finfo(torch.float64).max

T = TypeVar("T")


def compare(
    plan: MergePlan, output: Mapping[str, Shard], *, samples: int | None
) -> Iterator[Compared | tuple[PlannedTensor, bool]]:
    """For every tensor of the plan: what was found of a changed one, or whether a copied one is byte for byte its origin.

    ``output`` says in which file each tensor lies now. ``samples`` is how many pieces of each tensor are looked at, spread
    evenly; None for all.
    """
    paths = dict.fromkeys((*plan.sources, *(shard.path for shard in output.values())))
    with sources(paths) as files, one_core_each(workers_for("cpu")[1]) as pool:
        load = loader(plan, files)

        def look(one: PlannedTensor) -> Compared | tuple[PlannedTensor, bool]:
            if one.is_copy or not one.bytes:
                return one, _is_copy(one, output[one.name], files, samples)
            recipe = prepared(one, load, torch.device("cpu"), compute=torch.float64)
            return _compared(recipe, output[one.name], files, samples)

        yield from pool.map(look, plan.tensors)


def _is_copy(one: PlannedTensor, shard: Shard, files: Sources, samples: int | None) -> bool:
    there = shard.data_start + next(spec.start for spec in shard.tensors if spec.name == one.name)
    here = one.origin.shard.data_start + one.origin.spec.start
    starts = range(0, one.bytes, _PIECE)
    for start in _spread(starts, samples):
        count = min(_PIECE, one.bytes - start)
        ours, theirs = bytearray(count), bytearray(count)
        files.read_into(one.origin.shard.path, here + start, memoryview(ours))
        files.read_into(shard.path, there + start, memoryview(theirs))
        if ours != theirs:
            return False
    return True


def _compared(recipe: Recipe, shard: Shard, files: Sources, samples: int | None) -> Compared:
    one, stored = recipe.tensor, TORCH_DTYPES[recipe.tensor.dtype]
    if recipe.needs_statistic:
        looks = [recipe.look(_origin(recipe, block, files), block) for block in recipe.blocks(_ELEMENTS)]
        recipe.know(torch.stack(looks).sum(dim=0))
    rows = max(1, min(_ROWS, _ELEMENTS // max(recipe.columns, 1))) if samples is not None else None
    pieces = list(recipe.blocks(rows * max(recipe.columns, 1) if rows else _ELEMENTS))
    looked_at = changed = 0
    largest = beyond = expected_square = found_square = 0.0
    middles: list[float] = []
    for block in _spread(pieces, samples):
        before = _origin(recipe, block, files)
        found = _stored(one, shard, block, recipe.columns, files)
        expected = recipe.apply(before.clone(), block)
        size, apart = largest_term(before, expected), (found - expected).abs()
        errors = ulps(apart, size, stored)
        looked_at += errors.numel()
        rounded = before.to(stored).to(torch.float64)
        changed += int((found != rounded).sum())
        largest = max(largest, float(errors.max()))
        beyond = max(beyond, beyond_rounding(apart, expected, size, stored))
        middles.append(float(errors.flatten()[:_SOME].median()))
        expected_square += float((expected - before).square().sum())
        found_square += float((found - before).square().sum())
    middles.sort()
    return Compared(
        one.name,
        recipe.tensor.matrix[0] * recipe.columns,
        looked_at,
        changed,
        largest,
        middles[len(middles) // 2],
        beyond,
        sqrt(expected_square),
        sqrt(found_square),
    )


def ulps(apart: Tensor, size: Tensor, dtype: torch.dtype) -> Tensor:
    """Errors in units of the last place of numbers of this size."""
    return apart / _ulp(size, dtype)


def beyond_rounding(apart: Tensor, expected: Tensor, size: Tensor, dtype: torch.dtype) -> float:
    """The largest part of an error that rounding to ``dtype`` does not explain, as :class:`Compared` counts it; infinity for
    what is no number."""
    rest = (apart - _ulp(expected.abs(), dtype) / 2).clamp(min=0).amax(dim=1)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    found = rest / _ulp(size.amax(dim=1), arithmetic)
    return float(found.nan_to_num(nan=inf, posinf=inf).max())


def largest_term(before: Tensor, expected: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(before.abs(), expected.abs()), (expected - before).abs())


def _ulp(size: Tensor, dtype: torch.dtype) -> Tensor:
    """Of numbers of this size, as float64: the power of two below, which is a float64 without its fraction, times eps."""
    limits = torch.finfo(dtype)
    bits = size.clamp(min=limits.smallest_normal, max=_LARGEST).view(torch.int64) & _EXPONENT
    return bits.view(torch.float64) * limits.eps


def _origin(recipe: Recipe, block: Block, files: Sources) -> Tensor:
    origin, count = recipe.tensor.origin, (block.stop - block.start) * recipe.columns
    found = torch.empty(count, dtype=TORCH_DTYPES[origin.spec.dtype])
    read_into(files, origin, block.start * recipe.columns, found)
    return found.view(-1, recipe.columns).to(torch.float64)


def _stored(one: PlannedTensor, shard: Shard, block: Block, columns: int, files: Sources) -> Tensor:
    start = next(spec.start for spec in shard.tensors if spec.name == one.name)
    stored = TORCH_DTYPES[one.dtype]
    row = columns * stored.itemsize
    data = bytearray((block.stop - block.start) * row)
    files.read_into(shard.path, shard.data_start + start + block.start * row, memoryview(data))
    return torch.frombuffer(data, dtype=stored).view(-1, columns).to(torch.float64)


def _spread(items: Sequence[T], samples: int | None) -> Iterator[T]:
    """First, last, and what lies evenly between."""
    if samples is None or len(items) <= samples:
        yield from items
    else:
        for number in range(samples):
            yield items[number * (len(items) - 1) // max(samples - 1, 1)]
