"""Deltas that are known by their factors, without ever being multiplied out.

For a QR decomposition Aᵀ = Q·R the columns of Q are orthonormal, so ‖B·A‖ = ‖B·Rᵀ·Qᵀ‖ = ‖B·Rᵀ‖: a norm of (out, r)
numbers in place of (out, in). Norms are Frobenius norms, in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from registry.numerics.pieces import spans

#: What products, QR and SVD in float64 leave of terms that cancel, as a share of their size: a few units of roundoff, whatever the
#: shape.
_NOISE = 2.0**-50
_OVERSAMPLING = 16
_ITERATIONS = 4
#: Elements of a matrix that is copied to float64 as a whole, 512 MiB, and of a piece of a larger one: products of smaller pieces
#: take much longer.
_WIDENED, _PIECE = 1 << 26, 1 << 24


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


def size_of_terms(up: Tensor, down: Tensor) -> float:
    """Σ ‖bₖ‖·‖aₖ‖ over the columns of up (out, r) and the rows of down (r, in): at least ‖|up|·|down|‖, and never far above."""
    return float(torch.linalg.vector_norm(up, dim=0) @ torch.linalg.vector_norm(down, dim=1))


def audible(number: float, terms: float) -> float:
    """The number, a norm in float64, or 0 where it is what rounding leaves of terms of this size."""
    return number if number > _NOISE * terms else 0.0


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


class Decomposition(NamedTuple):
    """Δ = Q_up · diag(values) · Q_downᵀ: ``left`` (out, R), ``values`` (R) from large to small, ``right`` (R, in)."""

    left: Tensor
    values: Tensor
    right: Tensor


def decomposed(down: Tensor, up: Tensor) -> Decomposition:
    """The singular value decomposition of up·down for up (out, R) and down (R, in), in float64, without the product.

    up = Q_b·R_b and downᵀ = Q_a·R_a, so up·down = Q_b·(R_b·R_aᵀ)·Q_aᵀ, of which only the middle, R × R, is decomposed:
    O((out + in)·R²) in place of O(out·in·min(out, in)).
    """
    left, right = torch.linalg.qr(_wide(up)), torch.linalg.qr(_wide(down).mT)
    u, values, v = torch.linalg.svd(left.R @ right.R.mT, full_matrices=False)
    return Decomposition(left.Q @ u, values, v @ right.Q.mT)


def without_noise(found: Decomposition, terms: float) -> Decomposition:
    """With 0 for the singular values that are but what rounding leaves of terms of this size."""
    return found._replace(values=_audible(found.values, terms))


def spectrum(down: Tensor, up: Tensor) -> Tensor:
    """The singular values of up·down, from large to small, in float64; as :func:`decomposed`, :func:`without_noise`."""
    down, up = _wide(down), _wide(up)
    left, right = torch.linalg.qr(up, mode="r"), torch.linalg.qr(down.mT, mode="r")
    return _audible(torch.linalg.svdvals(left.R @ right.R.mT), size_of_terms(up, down))


def _audible(values: Tensor, terms: float) -> Tensor:
    return values.where(values > _NOISE * terms, 0.0)


def randomized(dense: Tensor, rank: int, generator: torch.Generator) -> Decomposition:
    """The largest ``rank`` singular values and vectors of a dense matrix (out, in), near enough: the range of dense is found
    by a few more random vectors than wanted and four power iterations. https://arxiv.org/abs/0909.4061, algorithm 4.4
    """
    if dense.numel() <= _WIDENED:
        dense = _wide(dense)
    count = min(rank + _OVERSAMPLING, *dense.shape)
    sample = torch.randn(dense.shape[1], count, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(_times(dense, sample)).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(_times(dense, torch.linalg.qr(_transposed_times(dense, basis)).Q)).Q
    u, values, v = torch.linalg.svd(_transposed_times(dense, basis).mT, full_matrices=False)
    return Decomposition((basis @ u)[:, :rank], values[:rank], v[:rank])


def _times(dense: Tensor, other: Tensor) -> Tensor:
    """dense · other in float64, where dense (out, in) may be too large to be copied."""
    return torch.cat([_wide(dense[span]) @ other for span in spans(*dense.shape, piece=_PIECE)])


def _transposed_times(dense: Tensor, other: Tensor) -> Tensor:
    """denseᵀ · other, likewise."""
    found = torch.zeros(dense.shape[1], other.shape[1], dtype=torch.float64)
    for span in spans(*dense.shape, piece=_PIECE):
        found += _wide(dense[span]).mT @ other[span]
    return found


def balanced(found: Decomposition, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (A (rank, in), B (out, rank)) of the best approximation of that rank (Eckart and Young), each with the
    roots of the singular values, so that neither outgrows a narrow type."""
    roots = found.values[:rank].sqrt()
    return roots.unsqueeze(1) * found.right[:rank], found.left[:, :rank] * roots


def evened(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (r, in) and (out, r) of the same product, to the last bit, with each rank-one term bₖ·aₖ evened out by a power of
    two: the largest elements of aₖ and bₖ differ by less than a factor of 4, so that neither leaves the range of a narrow type
    before the other."""
    rows, columns = down.abs().amax(dim=1), up.abs().amax(dim=0)
    apart = columns.frexp().exponent - rows.frexp().exponent
    twos = torch.pow(2.0, apart.double().div(2).floor()).where((rows > 0) & (columns > 0), 1.0)
    return down * twos.unsqueeze(1), up / twos


def inner(one: Factors, other: Factors) -> float:
    """⟨Δ, Δ'⟩ = s·s'·Σ (BᵀB') ⊙ (AA'ᵀ), in float64, without either product."""
    up = _wide(one.up).mT @ _wide(other.up)
    down = _wide(one.down) @ _wide(other.down).mT
    return one.scaling * other.scaling * float((up * down).sum())


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of σ / Σσ: how many directions a spectrum would have if all counted alike (Roy and Vetterli, The
    effective rank, 2007: https://ieeexplore.ieee.org/document/7098875)."""
    shares = values[values > 0] / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 0.0


def rank_for_energy(values: Tensor, energy: float, *, total: float | None = None) -> int:
    """The smallest rank whose singular values hold this share of Σσ²; at least 1, and all of them where they hold less.
    ``total`` is Σσ² where ``values`` are only the largest."""
    sums = values.square().cumsum(0)
    if not len(values) or not float(sums[-1]):
        return 1
    if total:
        energy = min(energy / (float(values.square().sum()) / total), 1.0)
    return min(int(torch.searchsorted(sums, energy * sums[-1] * (1 - 1e-12)).item()) + 1, len(values))


def principal_cosines(one: Factors, other: Factors) -> Tensor:
    """Cosines of the angles between the spaces that two deltas with as many rows write to, from large to small; as many as the
    smaller space has dimensions, and so none for a delta of nothing. A direction counts that float64 can tell from rounding."""
    cosines: Tensor = torch.linalg.svdvals(_column_space(one).mT @ _column_space(other))
    return cosines.clamp(max=1.0)


def _column_space(one: Factors) -> Tensor:
    """An orthonormal basis (out, dimensions)."""
    found = decomposed(one.down, one.up)
    size = max(one.up.shape[0], one.down.shape[1]) * torch.finfo(torch.float64).eps
    return found.left[:, found.values > size * found.values[:1].sum()]
