"""DELLA: drop at random, the smaller elements of each output more often. https://arxiv.org/abs/2406.11617

Within each row, elements are ranked by magnitude, and their chances to stay rise evenly from density − ε/2 to density + ε/2
(MAGPRUNE); what stays is divided by its own chance, so that each delta is itself in expectation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from registry.numerics.combining.dare import dropped
from registry.numerics.combining.magnitude import weighted_sum
from registry.numerics.combining.ties import agreed

#: The paper's ε is searched for; half of what there is room for is a middle.
_SPREAD = 0.5


def linear(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float, generator: Generator) -> Tensor:
    return weighted_sum([_pruned(delta, density, generator) for delta in deltas], weights)


def with_signs(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float, generator: Generator) -> Tensor:
    """With TIES' election and mean, as in the paper."""
    return agreed([_pruned(delta, density, generator) for delta in deltas], weights)


def _pruned(delta: Tensor, density: float, generator: Generator) -> Tensor:
    return dropped(delta, chances(delta, density), generator)


def chances(delta: Tensor, density: float) -> Tensor:
    """Of each element (out, in) to stay, by its rank within its row; their mean is the density."""
    rows, columns = delta.shape
    spread = _SPREAD * min(density, 1 - density)
    if columns == 1:
        return torch.full((rows, 1), density, dtype=torch.float64)
    rising = torch.linspace(density - spread, density + spread, columns, dtype=torch.float64)
    order = delta.abs().argsort(dim=1)
    return torch.empty(rows, columns, dtype=torch.float64).scatter_(1, order, rising.expand(rows, columns))
