"""Any run of elements of a tensor, read in its own type: as it is stored, or seen through NF4.

Blocks of NF4 run over the flattened tensor, whatever its rows are; a run that begins or ends inside a block is read
from the block's beginning to its end. So memory is that of what is asked for, and two runs are what one would be.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from registry.domain.checkpoint import Extent, Nested, Packed
from registry.formats.nf4 import LEVELS
from registry.numerics.nf4 import nearest, nested_scales, unpacked
from registry.plans.merging import Origin
from registry.weights.streams import Sources


def read_into(files: Sources, origin: Origin, first: int, into: Tensor) -> None:
    """Fill ``into``, a flat tensor of the origin's type on the CPU, with its elements from ``first`` on."""
    seen = origin.shard.nf4.get(origin.spec.name)
    if seen is None or not into.numel():
        _fill(files, _stored(origin), first, into)
        return
    start = first // seen.block * seen.block
    stop = min(-(-(first + into.numel()) // seen.block) * seen.block, origin.spec.elements)
    if isinstance(seen, Packed):
        found = _unpacked(files, seen, start, stop)
    else:
        stored = _read(files, _stored(origin), start, stop, into.dtype)
        found = nearest(stored.to(torch.float32), _levels(), seen.block)
    into.copy_(found[first - start : first - start + into.numel()])


def _unpacked(files: Sources, packed: Packed, start: int, stop: int) -> Tensor:
    """From one block's first element to another's last, in float32."""
    codes = _read(files, packed.codes, start // 2, (stop + 1) // 2, torch.uint8)
    first, last = start // packed.block, -(-stop // packed.block)
    if packed.nested is None:
        scales = _read(files, packed.scales, first, last, torch.float32)
    else:
        scales = _nested(files, packed.scales, packed.nested, first, last)
    return unpacked(codes, scales, _levels(), packed.block, stop - start)


def _nested(files: Sources, codes: Extent, nested: Nested, start: int, stop: int) -> Tensor:
    first = start // nested.block
    levels = torch.frombuffer(bytearray(nested.levels), dtype=torch.float32)
    found = _read(files, codes, first * nested.block, stop, torch.uint8)
    scales = _read(files, nested.scales, first, -(-stop // nested.block), torch.float32)
    return nested_scales(found, scales, levels, nested.block, nested.offset)[start - first * nested.block :]


@cache
def _levels() -> Tensor:
    return torch.tensor(LEVELS, dtype=torch.float32)


def _stored(origin: Origin) -> Extent:
    return Extent(origin.shard.path, origin.shard.data_start + origin.spec.start, origin.spec.bytes)


def _read(files: Sources, extent: Extent, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    found = torch.empty(stop - start, dtype=dtype)
    _fill(files, extent, start, found)
    return found


def _fill(files: Sources, extent: Extent, first: int, into: Tensor) -> None:
    files.read_into(extent.path, extent.start + first * into.itemsize, into.view(torch.uint8).numpy().data)
