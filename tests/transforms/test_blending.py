"""Deltas made one: what the adapters' order, and the machine's, has no part in."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from registry.plans.combining import EXACTLY, METHODS, Blend
from registry.transforms.blending import blended


def draw(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    found = [torch.randn(30, 20, generator=generator) for _ in range(count)]
    found[-1] = -found[0]  # as large as the first
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_adapters_does_not_matter(method: str) -> None:
    """To the last bit, for those as well that draw at random."""
    count = EXACTLY.get(method, 3)
    pairs = list(zip(draw(count), (0.7, -0.4, 0.9), strict=False))
    found = []
    for order in permutations(pairs):
        deltas, weights = zip(*order, strict=True)
        found.append(blended(Blend(method, 0.6, 3), deltas, weights, "q_proj", 0))
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_each_adapter_has_a_draw_of_its_own(method: str) -> None:
    (one, _) = draw(2)
    twice = blended(Blend(method, 0.5, 3), [one, one], [1.0, 1.0], "q_proj", 0)
    once = blended(Blend(method, 0.5, 3), [one], [1.0], "q_proj", 0)
    assert not torch.equal(twice != 0, once != 0)
