"""Model stock: the mean of the deltas, shrunk by how much they agree. https://arxiv.org/abs/2403.19522

For N deltas with the mean cosine c between them, t = N·c / (1 + (N − 1)·c) of the mean is nearest to the centre that they are
drawn around. The weights take the place of the mean's 1/N.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from registry.numerics.combining.magnitude import weighted_sum


def combine(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """t·Σ wᵢ·τᵢ; deltas at right angles leave nothing, equal ones their sum."""
    total = weighted_sum(deltas, weights)
    if len(deltas) == 1:
        return total
    flat = [delta.flatten() for delta in deltas]
    cosines = [torch.cosine_similarity(one, other, dim=0) for one, other in combinations(flat, 2)]
    cosine = float(torch.stack(cosines).mean().clamp(0, 1))
    count = len(deltas)
    return total * (count * cosine / (1 + (count - 1) * cosine))
