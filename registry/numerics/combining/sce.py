"""SCE: select the elements that differ most between the adapters, calculate each one's share from what it has there, and erase
minority signs. https://arxiv.org/abs/2408.07990

The paper has no weights; here they multiply the deltas first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from registry.numerics.combining.magnitude import nth_largest, weighted_sum


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """``density`` is the share of elements, those of highest variance, that is selected; one adapter alone is itself."""
    if len(deltas) == 1:
        return deltas[0] * weights[0]
    mean = weighted_sum(deltas, weights).div_(len(deltas))
    is_selected = _most_varied(deltas, weights, mean, density)
    energies = [
        float((delta * weight * is_selected).square_().sum(dtype=torch.float64))
        for delta, weight in zip(deltas, weights, strict=True)
    ]
    sign = mean.sign_().mul_(is_selected)
    found, held = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight, energy in zip(deltas, weights, energies, strict=True):
        share = energy / (sum(energies) or 1.0)
        weighted = delta * weight
        agrees = (weighted * sign > 0) * share
        held += agrees
        found += weighted.mul_(agrees)
    return torch.where(held > 0, found / held.clamp(min=1e-30), held)


def _most_varied(deltas: Sequence[Tensor], weights: Sequence[float], mean: Tensor, density: float) -> Tensor:
    variance = torch.zeros_like(mean)
    for delta, weight in zip(deltas, weights, strict=True):
        variance += (delta * weight).sub_(mean).square_()
    kept = max(1, round(density * variance.numel()))
    return variance >= nth_largest(variance.clone(), kept)
