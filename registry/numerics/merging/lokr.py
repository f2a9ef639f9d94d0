"""LoKr: W' = W + s·W₁ ⊗ W₂, Kronecker's product. https://arxiv.org/abs/2309.14859

W₁ (l, m) and W₂ (c, n·k) of a weight (l·c, m·n·k), k being the size of a convolution's kernel. Each is whole or a product of two
factors, and W₂ of a convolution may have a kernel tensor T (r, r, k) between them, as LoHa's. Output a·c + b has row a of W₁
and row b of W₂: these rows are all that a block needs.

PEFT reads a Conv1d layer's W₂ (c, n, k), if that is whole, as a product of three dimensions, W₁ taken for (1, l, m), and the
numbers of (c, l·n, m·k) as those of (l·c, m·n, k). That is no Kronecker product of the two, but it is what was trained.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rows(
    *,
    w1: Tensor | None = None,
    w1_a: Tensor | None = None,
    w1_b: Tensor | None = None,
    w2: Tensor | None = None,
    w2_a: Tensor | None = None,
    w2_b: Tensor | None = None,
    t2: Tensor | None = None,
) -> dict[str, Tensor]:
    """The rows of W₁ and W₂ for each output: (out, m) and (out, n·k)."""
    first, second = whole(w1, w1_a, w1_b), whole(w2, w2_a, w2_b, t2).flatten(1)
    return {
        "first": first.repeat_interleave(second.shape[0], dim=0),
        "second": second.repeat(first.shape[0], 1),
    }


def delta(*, first: Tensor, second: Tensor, scaling: float) -> Tensor:
    """The change (out, in·k)."""
    return (first.unsqueeze(2) * second.unsqueeze(1)).flatten(1).mul_(scaling)


def of_sequences(
    *, w1: Tensor | None = None, w1_a: Tensor | None = None, w1_b: Tensor | None = None, w2: Tensor
) -> dict[str, Tensor]:
    """What PEFT makes of W₂ (c, n, k), as (out, in·k)."""
    first = whole(w1, w1_a, w1_b)
    return {"product": torch.kron(first.unsqueeze(0), w2).reshape(first.shape[0] * w2.shape[0], -1)}


def sequence_delta(*, product: Tensor, scaling: float) -> Tensor:
    return product * scaling


def whole(one: Tensor | None, up: Tensor | None, down: Tensor | None, kernel: Tensor | None = None) -> Tensor:
    """A factor that is there, or the product of those that it was left in."""
    if one is not None:
        return one
    if up is None or down is None:
        raise ValueError("neither whole nor both factors")
    if kernel is None:
        return torch.mm(up, down)
    rank = up.shape[0]
    found: Tensor = torch.einsum("pqk,po,qi->oik", kernel.reshape(rank, rank, -1), up, down)
    return found.flatten(1)
