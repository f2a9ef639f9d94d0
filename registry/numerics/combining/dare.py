"""DARE: drop elements at random and rescale the rest, so that each delta is itself in expectation.
https://arxiv.org/abs/2311.03099"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from registry.numerics.combining.magnitude import weighted_sum
from registry.numerics.combining.ties import agreed
from registry.numerics.pieces import spans


def linear(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float, generator: Generator) -> Tensor:
    """Σ wᵢ·drop(τᵢ). ``density`` is the chance of an element to stay; what stays is divided by it."""
    return weighted_sum([dropped(delta, density, generator) for delta in deltas], weights)


def with_signs(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float, generator: Generator) -> Tensor:
    """The same dropping, then TIES' election and mean."""
    return agreed([dropped(delta, density, generator) for delta in deltas], weights)


def dropped(delta: Tensor, chance: float | Tensor, generator: Generator) -> Tensor:
    """Each element stays with its ``chance`` and is divided by it."""
    found = torch.empty_like(delta)
    for span in spans(*delta.shape):
        piece, likely = delta[span], chance[span] if isinstance(chance, Tensor) else chance
        stays = torch.rand(piece.shape, generator=generator, dtype=torch.float64) < likely
        found[span] = (piece / likely).where(stays, 0.0)
    return found
