"""OFT: W' = W·Rᵀ, R block diagonal and orthogonal. https://arxiv.org/abs/2306.07280, https://arxiv.org/abs/2506.19847

A block (b, b) of R is Cayley's transform (I − Q)(I + Q)⁻¹ of a skew-symmetric Q, whose b(b−1)/2 numbers above the diagonal
are what is trained. Cayley-Neumann is the series I + 2Q + 2Q² + … instead, cut off after as many terms as were trained with,
the last of them taken once: that of the transform of −Q, which turns the other way. There is one block for all, or one for
each b inputs. Of an embedding it is the dimensions that are turned: W' = W·R, W (vocabulary, dimension).
"""

from __future__ import annotations

from math import isqrt, sqrt

import torch
from torch import Tensor


def rotations(*, angles: Tensor, terms: float, limit: float) -> dict[str, Tensor]:
    """R's blocks (n, b, b) from ``angles`` (n, b(b−1)/2). ``terms`` of the series, or 0 for Cayley's transform itself; ``limit`` is
    the norm that all Q together may have (COFT), infinite if they may have any."""
    skew = skew_symmetric(angles)
    limit /= sqrt(angles.shape[0])
    norm = torch.linalg.vector_norm(skew, dim=(1, 2), keepdim=True)
    skew = torch.where(norm <= limit, skew, skew / norm * limit)
    return {"rotation": series(skew, int(terms)) if terms else cayley(skew)}


def merged(weight: Tensor, *, rotation: Tensor) -> Tensor:
    """W·Rᵀ (out, in)."""
    return by_blocks(weight, rotation.mT)


def merged_embedding(weight: Tensor, *, rotation: Tensor) -> Tensor:
    """W·R (vocabulary, dimension)."""
    return by_blocks(weight, rotation)


def by_blocks(weight: Tensor, blocks: Tensor) -> Tensor:
    """W times the block diagonal matrix of ``blocks`` (n, b, b), or of one of them (1, b, b) again and again."""
    cut = weight.reshape(weight.shape[0], -1, blocks.shape[1]).transpose(0, 1)
    return torch.matmul(cut, blocks).transpose(0, 1).flatten(1)


def skew_symmetric(angles: Tensor) -> Tensor:
    """(n, b, b) with ``angles`` (n, b(b−1)/2) above the diagonal, row by row."""
    size = (1 + isqrt(1 + 8 * angles.shape[1])) // 2
    upper = angles.new_zeros(angles.shape[0], size, size)
    rows, columns = torch.triu_indices(size, size, 1, device=angles.device)
    upper[:, rows, columns] = angles
    return upper - upper.mT


def cayley(skew: Tensor) -> Tensor:
    """(I − Q)(I + Q)⁻¹ of each Q (n, b, b)."""
    one = torch.eye(skew.shape[1], dtype=skew.dtype, device=skew.device)
    found: Tensor = torch.linalg.solve(one + skew, one - skew, left=False)
    return found


def series(skew: Tensor, terms: int) -> Tensor:
    """I + 2Q + 2Q² + … + Q^(terms−1) as PEFT counts them: three terms end with Q³, as four do."""
    found = torch.eye(skew.shape[1], dtype=skew.dtype, device=skew.device).repeat(skew.shape[0], 1, 1)
    if terms > 1:
        found.add_(skew, alpha=2.0)
    if terms > 2:
        power = torch.bmm(skew, skew)
        found.add_(power, alpha=2.0)
        for _ in range(3, terms - 1):
            power = torch.bmm(power, skew)
            found.add_(power, alpha=2.0)
        found.add_(torch.bmm(power, skew))
    return found
