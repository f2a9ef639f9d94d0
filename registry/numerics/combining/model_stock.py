"""Model stock: the mean of the deltas, shrunk by how much they agree. https://arxiv.org/abs/2403.19522

For N deltas with the mean cosine c between them, t = N·c / (1 + (N − 1)·c) of the mean is nearest to the centre that they are
drawn around. The weights take the place of the mean's 1/N.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from registry.numerics.combining.magnitude import weighted_sum
from registry.numerics.combining.products import inner_products


def combine(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """t·Σ wᵢ·τᵢ; deltas at right angles leave nothing, equal ones their sum."""
    total = weighted_sum(deltas, weights)
    if len(deltas) == 1:
        return total
    products, count = inner_products(deltas), len(deltas)
    norms = products.diagonal().sqrt()
    sizes = norms.unsqueeze(1) * norms
    shares = (products / sizes).where(sizes > 0, 0.0)
    cosines = [float(shares[i, j]) for i, j in combinations(range(count), 2)]
    cosine = min(max(sum(cosines) / len(cosines), 0.0), 1.0)
    return total * (count * cosine / (1 + (count - 1) * cosine))
