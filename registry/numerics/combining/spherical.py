"""Means on the sphere: directions are averaged along great circles, lengths by themselves, so that deltas that point apart do
not cancel. SLERP for two (https://dl.acm.org/doi/10.1145/325165.325242), the Karcher mean for any number
(https://arxiv.org/abs/1310.4973).

Weights say where between the deltas the direction lies; their sum scales the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import acos, cos, sin, sqrt

import torch
from torch import Tensor

from registry.numerics.combining.magnitude import weighted_sum
from registry.numerics.combining.products import inner_products

#: Of unit vectors with these cosines (n, n) and shares, the coefficients of a unit vector in the space that they span.
Direction = Callable[[Tensor, Sequence[float]], Tensor]

_STEPS = 50
_NEAR = 1e-9


def slerp(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Of two deltas: the direction at w₂ / (w₁ + w₂) of the way, with the weighted sum of both lengths. Where only one of two
    adapters has a target, it is itself there."""
    if len(deltas) == 1:
        return deltas[0] * weights[0]
    (one, other), (w, v) = deltas, weights
    return _on_sphere([one, other], [w, v], lambda cosines, shares: _between(cosines, shares[1]))


def karcher(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The direction with the least weighted sum of squared angles to all, with the weighted sum of the lengths."""
    return _on_sphere(deltas, weights, _centre)


def _on_sphere(deltas: Sequence[Tensor], weights: Sequence[float], direction: Direction) -> Tensor:
    """A weight below 0 is the opposite direction. Whatever the way, it stays in the space of the deltas, so that it is walked
    in n coordinates, n being their number, and the deltas are read but once."""
    products = inner_products(deltas)
    norms = [sqrt(float(products[i, i])) for i in range(len(deltas))]
    sizes = [abs(weight) for weight in weights]
    length = sum(size * norm for size, norm in zip(sizes, norms, strict=True))
    present = [i for i, norm in enumerate(norms) if norm and sizes[i]]
    if not present:
        return torch.zeros_like(deltas[0])
    scales = torch.tensor([(1 if weights[i] > 0 else -1) / norms[i] for i in present], dtype=torch.float64)
    cosines = scales.unsqueeze(1) * products[present][:, present] * scales
    total = sum(sizes[i] for i in present)
    shares = [sizes[i] / total for i in present]
    middle = torch.ones(1, dtype=torch.float64) if len(present) == 1 else direction(cosines, shares)
    found = (middle * scales * length).tolist()
    return weighted_sum([deltas[i] for i in present], found)


def _between(cosines: Tensor, share: float) -> Tensor:
    cosine = float(cosines[0, 1].clamp(-1, 1))
    angle = acos(cosine)
    if sin(angle) < 1e-6:  # the same direction, or opposite ones, between which there is no shortest way
        return _unit(torch.tensor([1 - share, share], dtype=torch.float64), cosines)
    return torch.tensor([sin((1 - share) * angle), sin(share * angle)], dtype=torch.float64) / sin(angle)


def _centre(cosines: Tensor, shares: Sequence[float]) -> Tensor:
    """Steps along the mean of the directions in which the units lie, seen from the centre."""
    weights = torch.tensor(shares, dtype=torch.float64)
    centre = _unit(weights, cosines)
    for _ in range(_STEPS):
        seen = (cosines @ centre).clamp(-1, 1)
        lengths = (1 - seen.square()).sqrt().clamp(min=_NEAR)
        pulls = weights * seen.acos() / lengths
        step = pulls - (pulls * seen).sum() * centre
        size = _norm(step, cosines)
        if size < _NEAR:
            break
        centre = _unit(centre * cos(size) + step / size * sin(size), cosines)
    return centre


def _norm(coefficients: Tensor, cosines: Tensor) -> float:
    return sqrt(max(float(coefficients @ cosines @ coefficients), 0.0))


def _unit(coefficients: Tensor, cosines: Tensor) -> Tensor:
    """Of that direction; the first of the units where they cancel."""
    norm = _norm(coefficients, cosines)
    if norm > _NEAR:
        return coefficients / norm
    return torch.eye(len(coefficients), dtype=torch.float64)[0]
