"""Numbers as levels: a block of elements shares a scale, and each is one of 16 levels times it, or of 256.

    w = levels[code] · scale            scale = max |w| of the block

Products are float32, rounded once; so are bitsandbytes' kernels', whose results these are bit for bit.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

#: The least scale that is divided by: a block of zeros stays zeros.
_LEAST = 1e-38


def unpacked(codes: Tensor, scales: Tensor, levels: Tensor, block: int, count: int) -> Tensor:
    """``count`` float32 numbers out of bytes with two codes each, the first in the upper half; both begin a block."""
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1).view(torch.int64).view(-1)
    found = pairs.index_select(0, codes.to(torch.int32)).view(torch.float32)[:count]
    return _scaled(found, scales, block)


def nested_scales(codes: Tensor, scales: Tensor, levels: Tensor, block: int, offset: float) -> Tensor:
    """Scales out of bytes: levels[code] · scale + offset, of which product and sum are rounded each."""
    return _scaled(levels.index_select(0, codes.to(torch.int32)), scales, block).add_(offset)


def nearest(weight: Tensor, levels: Tensor, block: int) -> Tensor:
    """The flat float32 ``weight``, every element moved to the nearest level of its block; the last may be short.

    An element halfway between two levels takes the lower. It is multiplied by 1/scale, as in the kernels.
    """
    count = weight.numel()
    filled = torch.nn.functional.pad(weight, (0, -count % block)).view(-1, block)
    scales = filled.abs().amax(dim=1)
    share = filled * (1 / scales.clamp(min=_LEAST))[:, None]
    return _scaled(levels.index_select(0, _codes(share.view(-1), levels)), scales, block)[:count]


def _codes(share: Tensor, levels: Tensor) -> Tensor:
    """How many bounds between two levels are below each number: ``torch.bucketize``, many times as fast."""
    least, bounds = _buckets(tuple(levels.tolist()))
    bucket = (share.view(torch.int32) >> 16) & 0xFFFF
    return least.index_select(0, bucket).add_(share > bounds.index_select(0, bucket))


@cache
def _buckets(levels: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """By the upper half of a float32's bits: the code of the least such number, and a bound among them, or inf."""
    exact = torch.tensor(levels)
    bounds = (exact[1:] + exact[:-1]) / 2
    halves = torch.arange(1 << 16, dtype=torch.int64)
    bits = torch.stack([halves << 16, (halves << 16) | 0xFFFF])
    ends = torch.where(bits < 1 << 31, bits, bits - (1 << 32)).to(torch.int32).view(torch.float32)
    first, last = torch.bucketize(ends.amin(dim=0), bounds), torch.bucketize(ends.amax(dim=0), bounds)
    among = torch.where(last > first, bounds[first.clamp(max=len(bounds) - 1)], torch.inf)
    return first.to(torch.int32), among


def _scaled(numbers: Tensor, scales: Tensor, block: int) -> Tensor:
    whole = numbers.numel() // block
    numbers[: whole * block].view(-1, block).mul_(scales[:whole, None])
    if whole < scales.numel():
        numbers[whole * block :].mul_(scales[whole])
    return numbers
