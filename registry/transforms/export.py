"""A repaired adapter is written, and shown to be equal to the one it was made of.

Faithful means: every scaling is folded into B in float64 and rounded once. Where the type of the file cannot hold the
product, which for 16-bit types is always but for powers of two, all factors are stored as F32: the rounding is then
2⁻²⁴ of each number, far below what the engine's own type costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import hypot, inf
from pathlib import Path

import torch
from torch import Tensor

from registry.checks.repair import Repair, TensorRepair
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError
from registry.numerics.low_rank import Distance, Factors, distance, padded
from registry.numerics.precision import NARROW, is_exact, scaled, unit_roundoff
from registry.plans.results import Equality
from registry.transforms.layout import matrices
from registry.transforms.streaming import same_numbers
from registry.variants.lora_targets import LoraDelta
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.reading import TensorFile, open_tensors
from registry.weights.writing import laid_out, write_tensors

__all__ = ["different", "equalities", "rewrite", "same_numbers"]

_WIDE = "F32"
#: float64 itself: a few hundred roundings of 2⁻⁵³.
_NOISE = 1e-13


def rewrite(source: Path, repair: Repair, into: Path) -> bool:
    """Write the file of weights. Returns whether the factors had to be stored in a wider type."""
    with open_tensors(source) as file:
        _require_unchanged(file, repair.tensors)
        widen = any(_needs_width(file, row) for row in repair.tensors)
        rows = {row.spec.name: _widened(row) if widen else row for row in repair.tensors}
        specs = laid_out(row.spec for row in rows.values())
        write_tensors(into, specs, (_made(file, rows[spec.name]) for spec in specs), metadata=file.metadata)
        return widen


def equalities(source: Path, copy: Path, pairs: Iterable[tuple[str, LoraDelta, LoraDelta]]) -> Iterator[Equality]:
    """For each target by its path: its delta in ``source``, and in ``copy`` as it was read back from the disk."""
    with open_tensors(source) as ours, open_tensors(copy) as theirs:
        for path, before, after in pairs:
            yield _equality(path, _distances(ours, before, theirs, after), after.up.dtype)


def different(source: Path, copy: Path, names: Iterable[tuple[str, str]]) -> list[str]:
    """Which tensors, by their names in ``source`` and in ``copy``, are not the same byte for byte."""
    with open_tensors(source) as ours, open_tensors(copy) as theirs:
        return [one for one, other in names if ours.read_bytes(one) != theirs.read_bytes(other)]


def _needs_width(file: TensorFile, row: TensorRepair) -> bool:
    dtype = TORCH_DTYPES.get(row.spec.dtype)
    if not row.is_factor or row.factor == 1 or dtype not in NARROW:
        return False
    return not is_exact(scaled(file.read(row.source.name), row.factor), dtype)


def _widened(row: TensorRepair) -> TensorRepair:
    """All factors become as wide, since engines stack A and B of many modules."""
    if row.is_factor and TORCH_DTYPES.get(row.spec.dtype) in NARROW:
        return replace(row, spec=TensorSpec(row.spec.name, _WIDE, row.spec.shape))
    return row


def _made(file: TensorFile, row: TensorRepair) -> Tensor | bytearray:
    if row.is_copy and row.spec.dtype == row.source.dtype:
        return file.read_bytes(row.source.name)
    tensor = file.read(row.source.name)
    if row.factor != 1:
        tensor = scaled(tensor, row.factor)
    return padded(tensor.to(TORCH_DTYPES[row.spec.dtype]), row.spec.shape)


def _require_unchanged(file: TensorFile, rows: Sequence[TensorRepair]) -> None:
    changed = [row.source.name for row in rows if file.specs.get(row.source.name) != row.source]
    if changed:
        raise MalformedFileError(
            str(file.path),
            f"has another {changed[0]} than a moment ago",
            code="changed-while-read",
            hint="wait until whoever writes the file has finished, then try again",
        )


def _distances(ours: TensorFile, before: LoraDelta, theirs: TensorFile, after: LoraDelta) -> Iterator[Distance]:
    one = (ours.read(before.down.name), ours.read(before.up.name))
    other = (theirs.read(after.down.name), theirs.read(after.up.name))
    s, t = before.scaling, after.scaling
    if s == t and all(torch.equal(a, b) for a, b in zip(one, other, strict=True)):
        yield Distance(0.0, 1.0, 1.0)  # whatever the variant makes of these
    elif s is None or t is None:
        yield Distance(inf, 1.0, 1.0)
    else:
        yield from (
            distance(Factors(a, b, s), Factors(c, d, t))
            for (a, b), (c, d) in zip(
                matrices(*one, experts=before.experts), matrices(*other, experts=after.experts), strict=True
            )
        )


def _equality(path: str, distances: Iterable[Distance], dtype: str) -> Equality:
    found = list(distances)
    difference, norm, magnitude = (hypot(*(getattr(one, field) for one in found)) for field in Distance._fields)
    stored = TORCH_DTYPES[dtype]
    rounding = 0.0 if stored in NARROW else unit_roundoff(stored)  # narrow types hold what is exact in them
    allowed = (rounding + _NOISE) * magnitude
    size = norm or 1.0
    return Equality(path, difference / size, allowed / size)
