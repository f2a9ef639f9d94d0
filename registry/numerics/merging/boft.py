"""BOFT: W' = diag(s)·W·Rᵀ, R a product of block diagonal orthogonal matrices. https://arxiv.org/abs/2311.06243

Here with one of them, a butterfly factor of 1: R's blocks (b, b) are Cayley's transforms of ½(Q − Qᵀ), Q being what is trained.
"""

from __future__ import annotations

from torch import Tensor

from registry.numerics.merging.oft import by_blocks, cayley


def rotations(*, blocks: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """R's blocks (n, b, b) from Q (1, n, b, b), and s (out)."""
    matrices = blocks.flatten(0, 1)
    return {"rotation": cayley((matrices - matrices.mT).mul_(0.5)), "scale": scale.reshape(-1)}


def merged(weight: Tensor, *, rotation: Tensor, scale: Tensor) -> Tensor:
    """The new block (out, in)."""
    return by_blocks(weight, rotation.mT) * scale.unsqueeze(1)
