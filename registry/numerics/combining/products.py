"""How deltas lie to each other: their inner products, of which some methods make angles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PIECE = 1 << 20


def inner_products(deltas: Sequence[Tensor]) -> Tensor:
    """⟨τᵢ, τⱼ⟩ in float64, of a piece at a time."""
    flat = [delta.reshape(-1) for delta in deltas]
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for start in range(0, flat[0].numel(), _PIECE):
        piece = torch.stack([one[start : start + _PIECE] for one in flat]).double()
        total += piece @ piece.mT
    return total
