"""SCE: select the elements that differ most between the adapters, calculate each one's share from what it has there, and erase
minority signs. https://arxiv.org/abs/2408.07990

The paper has no weights; here they multiply the deltas first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """``density`` is the share of elements, those of highest variance, that is selected; one adapter alone is itself."""
    weighted = torch.stack([delta * weight for delta, weight in zip(deltas, weights, strict=True)])
    if len(deltas) == 1:
        return weighted[0]
    selected = weighted * _most_varied(weighted, density)
    energies = selected.square().flatten(1).sum(dim=1)
    total = energies.sum()
    if not float(total):
        return torch.zeros_like(weighted[0])
    shares = (energies / total).reshape(-1, *(1 for _ in weighted.shape[1:]))
    sign = selected.sum(dim=0).sign()
    agrees = (selected.sign() == sign) & (sign != 0)
    held = (shares * agrees).sum(dim=0)
    return torch.where(
        held > 0, (selected * shares * agrees).sum(dim=0) / held.clamp(min=1e-300), torch.zeros_like(held)
    )


def _most_varied(weighted: Tensor, density: float) -> Tensor:
    variance = weighted.var(dim=0, unbiased=False)
    kept = max(1, round(density * variance.numel()))
    edge = variance.flatten().kthvalue(variance.numel() - kept + 1).values
    return variance >= edge
