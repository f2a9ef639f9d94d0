"""Means on the sphere: directions are averaged along great circles, lengths by themselves, so that deltas that point apart do
not cancel. SLERP for two (https://dl.acm.org/doi/10.1145/325165.325242), the Karcher mean for any number
(https://arxiv.org/abs/1310.4973).

Weights say where between the deltas the direction lies; their sum scales the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import acos, sin

import torch
from torch import Tensor

Direction = Callable[[Tensor, Sequence[float]], Tensor]

_STEPS = 50
_NEAR = 1e-9


def slerp(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Of two deltas: the direction at w₂ / (w₁ + w₂) of the way, with the weighted sum of both lengths."""
    (one, other), (w, v) = deltas, weights
    return _on_sphere(torch.stack([one, other]), [w, v], lambda units, shares: _between(units, shares[1]))


def karcher(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The direction with the least weighted sum of squared angles to all, with the weighted sum of the lengths."""
    return _on_sphere(torch.stack(list(deltas)), weights, _centre)


def _on_sphere(deltas: Tensor, weights: Sequence[float], direction: Direction) -> Tensor:
    """A weight below 0 is the opposite direction."""
    signed = deltas * torch.tensor(weights, dtype=deltas.dtype).sign().reshape(-1, *(1 for _ in deltas.shape[1:]))
    sizes = [abs(weight) for weight in weights]
    flat = signed.flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1)
    length = float(sum(size * norm for size, norm in zip(sizes, norms, strict=True)))
    present = [i for i, norm in enumerate(norms) if float(norm) and sizes[i]]
    if not present:
        return torch.zeros_like(deltas[0])
    units = flat[present] / norms[present].unsqueeze(1)
    total = sum(sizes[i] for i in present)
    shares = [sizes[i] / total for i in present]
    middle = units[0] if len(present) == 1 else direction(units, shares)
    return (middle * length).reshape(deltas.shape[1:])


def _between(units: Tensor, share: float) -> Tensor:
    cosine = float(torch.dot(units[0], units[1]).clamp(-1, 1))
    angle = acos(cosine)
    if sin(angle) < 1e-6:  # the same direction, or opposite ones, between which there is no shortest way
        mixed = units[0] * (1 - share) + units[1] * share
        norm = torch.linalg.vector_norm(mixed)
        return mixed / norm if float(norm) > _NEAR else units[0]
    return (units[0] * sin((1 - share) * angle) + units[1] * sin(share * angle)) / sin(angle)


def _centre(units: Tensor, shares: Sequence[float]) -> Tensor:
    """Steps along the mean of the directions in which the units lie, seen from the centre."""
    weights = torch.tensor(shares, dtype=units.dtype).unsqueeze(1)
    centre = (units * weights).sum(dim=0)
    norm = torch.linalg.vector_norm(centre)
    centre = centre / norm if float(norm) > _NEAR else units[0]
    for _ in range(_STEPS):
        cosines = (units @ centre).clamp(-1, 1)
        angles = cosines.acos()
        aside = units - cosines.unsqueeze(1) * centre
        lengths = torch.linalg.vector_norm(aside, dim=1).clamp(min=_NEAR)
        step = (aside * (weights.squeeze(1) * angles / lengths).unsqueeze(1)).sum(dim=0)
        size = float(torch.linalg.vector_norm(step))
        if size < _NEAR:
            break
        centre = centre * torch.cos(torch.tensor(size)) + step / size * torch.sin(torch.tensor(size))
        centre = centre / torch.linalg.vector_norm(centre)
    return centre
