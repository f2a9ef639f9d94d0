"""Ranks for many layers at once, when all of them together may cost so much and no more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Energies below this share of the layer's largest are what float64 left of nothing.
_NOTHING = 1e-28


def ranks_within(energies: Sequence[Tensor], costs: Sequence[int], budget: int) -> list[int]:
    """A rank of at least 1 for every layer, so that Σ rankᵢ·costᵢ ≤ budget.

    ``energies[i]`` are what each further rank of layer i saves of the squared error, from large to small. Ranks are granted in
    the order of energy per cost, over all layers, up to the first for which too little is left. So no other ranks that cost
    as much or less save more: with λ the energy per cost of the last one granted, every rank that is granted saves at least λ
    per cost, and every other one at most. What is left of the budget is less than the rank costs that would have come next; a
    cheaper one of another layer may fit, and would save less per cost.
    """
    counts = [len(one) for one in energies]
    layer = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts) - 1)
    further = torch.cat([one[1:] for one in energies])
    floor = torch.stack([one[0] for one in energies])[layer] * _NOTHING
    price = torch.tensor(costs)[layer]
    order = (further / price).argsort(descending=True, stable=True)
    order = order[(further > floor)[order]]
    left = budget - sum(costs)
    granted = order[price[order].cumsum(0) <= left]
    return (1 + torch.bincount(layer[granted], minlength=len(counts))).tolist()
