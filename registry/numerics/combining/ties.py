"""TIES: trim each delta, elect a sign for each element, and average those that have it. https://arxiv.org/abs/2306.01708

The paper scales the mean of the agreeing deltas by one λ; here each delta has its weight within the mean, so that equal weights
λ are the paper's formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from registry.numerics.combining.magnitude import pruned, weighted_sum
from registry.numerics.pieces import elementwise


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """``density`` is the share of each delta's elements that trimming leaves."""
    return agreed([pruned(delta, density) for delta in deltas], weights)


def agreed(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of wᵢ·τᵢ over the adapters whose element has the sign of Σ wᵢ·τᵢ; 0 where nobody has."""
    return elementwise(partial(_agreed, weights=weights), deltas)


def _agreed(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    sign = weighted_sum(deltas, weights).sign_()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        weighted = delta * weight
        has_it = weighted * sign > 0
        total += weighted * has_it
        count += has_it
    return total.div_(count.clamp_(min=1))
