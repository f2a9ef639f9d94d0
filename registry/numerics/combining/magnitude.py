"""Pruning by magnitude: of each delta only its largest elements are kept, and the weighted sum is taken.
https://arxiv.org/abs/1506.02626"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from registry.numerics.pieces import elementwise


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """Σ wᵢ·prune(τᵢ); ``density`` is the share of elements that stays, at least one."""
    return weighted_sum([pruned(delta, density) for delta in deltas], weights)


def pruned(delta: Tensor, density: float) -> Tensor:
    """The delta with all but its ⌈density·n⌉ largest elements 0; equal magnitudes at the edge all stay."""
    kept = max(1, -int(-density * delta.numel() // 1))
    if kept >= delta.numel():
        return delta
    edge = nth_largest(delta.abs(), kept)
    return elementwise(lambda pieces: pieces[0].where(pieces[0].abs() >= edge, 0.0), [delta])


def nth_largest(values: Tensor, count: int) -> float:
    """The ``count``-th largest of them, from 1 on; ``values`` are in another order after it."""
    flat = values.reshape(-1).numpy()  # whose partition takes no more memory, while kthvalue takes that of three copies
    flat.partition(flat.size - count)
    return float(flat[flat.size - count])


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total += delta * weight
    return total
