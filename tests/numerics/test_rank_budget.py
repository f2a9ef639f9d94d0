"""Ranks within a budget: held against every other choice there is."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from registry.numerics.rank_budget import ranks_within

layers = st.lists(
    st.tuples(st.lists(st.floats(1e-3, 10), min_size=1, max_size=4), st.integers(1, 9)), min_size=1, max_size=4
)


def split(drawn: list[tuple[list[float], int]]) -> tuple[list[Tensor], list[int]]:
    energies = [torch.tensor(sorted(values, reverse=True), dtype=torch.float64) for values, _ in drawn]
    return energies, [cost for _, cost in drawn]


def spent(ranks: list[int] | tuple[int, ...], costs: list[int]) -> int:
    return sum(rank * cost for rank, cost in zip(ranks, costs, strict=True))


def lost(ranks: list[int] | tuple[int, ...], energies: list[Tensor]) -> float:
    return sum(float(one[rank:].sum()) for rank, one in zip(ranks, energies, strict=True))


@given(layers, st.integers(0, 80))
def test_no_other_ranks_of_as_many_bytes_or_fewer_lose_less(drawn: list[tuple[list[float], int]], more: int) -> None:
    energies, costs = split(drawn)
    budget = sum(costs) + more
    found = ranks_within(energies, costs, budget)
    assert all(1 <= rank <= len(one) for rank, one in zip(found, energies, strict=True))
    assert spent(found, costs) <= budget
    ours, size = lost(found, energies), spent(found, costs)
    for other in product(*(range(1, len(one) + 1) for one in energies)):
        if spent(other, costs) <= size:
            assert lost(other, energies) >= ours * (1 - 1e-12) - 1e-12


@given(layers, st.integers(0, 80))
def test_what_is_left_is_less_than_one_rank_costs(drawn: list[tuple[list[float], int]], more: int) -> None:
    energies, costs = split(drawn)
    budget = sum(costs) + more
    found = ranks_within(energies, costs, budget)
    if found != [len(one) for one in energies]:
        assert budget - spent(found, costs) < max(costs)


@given(layers)
def test_more_bytes_never_lose_more(drawn: list[tuple[list[float], int]]) -> None:
    energies, costs = split(drawn)
    losses = [lost(ranks_within(energies, costs, sum(costs) + more), energies) for more in range(40)]
    assert losses == sorted(losses, reverse=True)


def test_a_rank_that_saves_nothing_is_not_paid_for() -> None:
    energies = [torch.tensor([4.0, 1.0, 1e-31, 0.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    assert ranks_within(energies, [1, 1], 1000) == [2, 1]


@pytest.mark.parametrize("count", [1, 200])
def test_layers_alike_get_ranks_alike(count: int) -> None:
    energies = [torch.tensor([8.0, 4.0, 2.0, 1.0])] * count
    assert ranks_within(energies, [10] * count, 30 * count) == [3] * count
