"""LoHa: W' = W + s·(A₁·B₁) ⊙ (A₂·B₂), a product of ranks. https://arxiv.org/abs/2108.06098

Aᵢ (out, r), Bᵢ (r, in). A convolution may have a kernel tensor Tᵢ (r, r, k) between them (proposition 3 of the paper): its
factors are Aᵢ (r, out), Bᵢ (r, in), and each of the two products is Σ_{pq} A[p, o] T[p, q, k] B[q, i], (out, in, k).
"""

from __future__ import annotations

import torch
from torch import Tensor


def delta(*, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, scaling: float) -> Tensor:
    """The change (out, in)."""
    return torch.mm(w1_a, w1_b).mul_(torch.mm(w2_a, w2_b)).mul_(scaling)


def kernel_delta(
    *, w1_a: Tensor, w1_b: Tensor, t1: Tensor, w2_a: Tensor, w2_b: Tensor, t2: Tensor, scaling: float
) -> Tensor:
    """The change (out, in·k), with T (r, r·k)."""
    return with_kernel(t1, w1_a, w1_b).mul_(with_kernel(t2, w2_a, w2_b)).mul_(scaling)


def with_kernel(kernel: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Σ_{pq} up[p, o] kernel[p, q, k] down[q, i], as (out, in·k); ``kernel`` is (r, r·k)."""
    rank = up.shape[0]
    found: Tensor = torch.einsum("pqk,qi,po->oik", kernel.reshape(rank, rank, -1), down, up)
    return found.flatten(1)
