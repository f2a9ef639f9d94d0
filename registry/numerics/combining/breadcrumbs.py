"""Model breadcrumbs: leave out the smallest elements of each delta, and the very largest. https://arxiv.org/abs/2312.06795"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from registry.numerics.combining.magnitude import weighted_sum

#: The share of outliers that go, as in the paper's experiments.
_OUTLIERS = 0.01


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """Σ wᵢ·mask(τᵢ): of each delta ``density`` of the elements stays, those below its largest 1 %."""
    return weighted_sum([masked(delta, density) for delta in deltas], weights)


def masked(delta: Tensor, density: float) -> Tensor:
    count = delta.numel()
    above = min(int(_OUTLIERS * count), int((1 - density) * count))
    kept = max(1, round(density * count))
    order = delta.abs().flatten().argsort(descending=True, stable=True)
    result = torch.zeros(count, dtype=delta.dtype)
    middle = order[above : above + kept]
    result[middle] = delta.flatten()[middle]
    return result.reshape(delta.shape)
