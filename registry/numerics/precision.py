"""What it costs to store numbers: which are exact in a type, and how far the others are moved.

Unit roundoff u: rounding to nearest moves x by at most u·|x| while x is a normal number of the type (IEEE 754).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Types with fewer digits than float32, in which a product of two numbers is hardly ever exact.
NARROW = frozenset(
    {
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
    }
)


def unit_roundoff(dtype: torch.dtype) -> float:
    """2⁻²⁴ for float32, 2⁻⁸ for bfloat16."""
    return float(torch.finfo(dtype).eps) / 2


def is_rounding(one: Tensor, other: Tensor) -> bool:
    """Whether one tensor is the other, stored in its own type or rounded to the other's."""
    if one.shape != other.shape:
        return False
    return torch.equal(one.to(other.dtype), other) or torch.equal(other.to(one.dtype), one)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """factor · tensor in float64, which a power of two makes exact whatever type the tensor has."""
    return tensor.to(torch.float64) * factor


def is_exact(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether every float64 value survives being stored as ``dtype``."""
    return bool(torch.equal(values.to(dtype).to(torch.float64), values))
