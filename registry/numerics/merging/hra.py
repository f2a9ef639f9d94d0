"""HRA: W' = W·H₀·H₁·…, a chain of reflections Hᵢ = I − 2·uᵢ·uᵢᵀ / ‖uᵢ‖². https://arxiv.org/abs/2405.17484

U (in, r) has uᵢ as columns. With all of length 1 the chain is I − U·T·Uᵀ for a triangular T (r, r): one more reflection gives it
the column −2·T·Uᵀ·u above a 2 (the compact form of Schreiber and Van Loan, https://doi.org/10.1137/0910005).
"""

from __future__ import annotations

import torch
from torch import Tensor


def chain(*, vectors: Tensor, orthogonal: float) -> dict[str, Tensor]:
    """U (in, r) and T·Uᵀ (r, in). ``orthogonal`` 1: the vectors are made orthogonal first, so that T is twice the identity."""
    if orthogonal:
        units = gram_schmidt(vectors)
        return {"down": units, "up": 2 * units.mT}
    units = vectors / vectors.norm(dim=0)
    rank = units.shape[1]
    mixed = units.new_zeros(rank, rank)
    for i in range(rank):
        mixed[:i, i] = -2 * (mixed[:i, :i] @ (units[:, :i].mT @ units[:, i]))
        mixed[i, i] = 2
    return {"down": units, "up": torch.mm(mixed, units.mT)}


def merged(weight: Tensor, *, down: Tensor, up: Tensor) -> Tensor:
    """W − W·U·(T·Uᵀ), (out, in)."""
    return weight - torch.mm(torch.mm(weight, down), up)


def gram_schmidt(vectors: Tensor) -> Tensor:
    """Columns of length 1 that are orthogonal; each spans, with those before it, what it did. In float64: training starts with
    pairs of equal vectors, and what is left of nearly equal ones is their difference."""
    wide = vectors.to(torch.float64)
    units = torch.zeros_like(wide)
    for i in range(wide.shape[1]):
        rest = wide[:, i]
        for j in range(i):
            rest = rest - (units[:, j] @ rest) * units[:, j]
        units[:, i] = rest / rest.norm()
    return units.to(vectors.dtype)
