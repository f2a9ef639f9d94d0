"""Deltas that are known by their factors, without ever being multiplied out.

For a QR decomposition Aᵀ = Q·R the columns of Q are orthonormal, so ‖B·A‖ = ‖B·Rᵀ·Qᵀ‖ = ‖B·Rᵀ‖: a norm of (out, r)
numbers in place of (out, in). Norms are Frobenius norms, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """The delta ``scaling``·``up``·``down``: ``down`` (r, in), ``up`` (out, r)."""

    down: Tensor
    up: Tensor
    scaling: float


class Distance(NamedTuple):
    """``difference`` ‖Δ − Δ'‖, ``norm`` ‖Δ‖, and ``magnitude`` ‖|s·B|·|A|‖, the size that rounding errors of B go with."""

    difference: float
    norm: float
    magnitude: float


def padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor in the first corner of zeros: more rows for A or more columns for B leave B·A as it is."""
    if tuple(tensor.shape) == shape:
        return tensor
    larger = torch.zeros(shape, dtype=tensor.dtype)
    larger[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return larger


def product_norm(up: Tensor, down: Tensor) -> float:
    """‖up·down‖ for up (out, r) and down (r, in)."""
    triangle = torch.linalg.qr(down.mT, mode="r").R
    return float(torch.linalg.matrix_norm(up @ triangle.mT))


def distance(ours: Factors, theirs: Factors) -> Distance:
    """How far two deltas of the same shape are apart; exactly 0 where the factors say the same number for number.

    Δ − Δ' = [s·B, −s'·B'] · [A; A'] is a product of factors itself. Ranks may differ.
    """
    down, up = _wide(ours.down), _wide(ours.up) * ours.scaling
    other_down, other_up = _wide(theirs.down), _wide(theirs.up) * theirs.scaling
    norm = product_norm(up, down)
    magnitude = product_norm(up.abs(), down.abs())
    if _same(down.mT, other_down.mT) and _same(up, other_up):
        return Distance(0.0, norm, magnitude)
    both = product_norm(torch.cat([up, -other_up], dim=1), torch.cat([down, other_down]))
    return Distance(both, norm, magnitude)


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal in the columns that both have, and zero in those that one has more."""
    shared = min(one.shape[1], other.shape[1])
    rest = (one[:, shared:], other[:, shared:])
    return torch.equal(one[:, :shared], other[:, :shared]) and not any(bool(part.any()) for part in rest)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64)
