"""Which weights are asked for: few, within bounds, never twice, the same ones for the same answers; and they lead somewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.numerics.weight_search import DECIMALS, explore

Loss = Callable[[tuple[float, ...]], float]


def asked(
    loss: Loss, start: tuple[float, ...], *, budget: int = 20, seed: int = 0, low: float = -1.5, high: float = 1.5
) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = []

    def record(weights: tuple[float, ...]) -> float:
        found.append(weights)
        return loss(weights)

    explore(record, start, low=low, high=high, budget=budget, seed=seed)
    return found


def bowl(centre: tuple[float, ...], seed: int = 0) -> Loss:
    draw = np.random.default_rng(seed)
    turn = draw.normal(size=(len(centre), len(centre)))
    shape = turn @ turn.T / len(centre) + 0.3 * np.eye(len(centre))

    def loss(weights: tuple[float, ...]) -> float:
        apart = np.array(weights) - centre
        return float(apart @ shape @ apart)

    return loss


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 15), st.integers(0, 99))
def test_the_budget_the_bounds_and_the_start_hold(count: int, budget: int, seed: int) -> None:
    start = tuple(0.1 * n + 1 / 3 for n in range(count))
    found = asked(bowl((0.25,) * count, seed), start, budget=budget, seed=seed, low=-0.5, high=1.0)
    assert found[0] == start
    assert len(found) == len(set(found)) == budget
    assert all(-0.5 <= weight <= 1.0 and round(weight, DECIMALS) == weight for weights in found[1:] for weight in weights)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(0, 99))
def test_a_smooth_score_is_found_within_a_small_budget(count: int, seed: int) -> None:
    centre = tuple(np.random.default_rng(seed).uniform(-0.2, 1.2, count))
    loss = bowl(centre, seed)
    best = min(asked(loss, (1 / count,) * count, budget=10 * count + 10), key=loss)
    assert loss(best) < 0.02 * loss((1 / count,) * count) + 1e-4


def test_the_same_answers_lead_to_the_same_questions_and_another_seed_to_others() -> None:
    def steps(weights: tuple[float, ...]) -> float:
        return round(10 * bowl((0.3, 0.9))(weights)) / 10  # flat places, so that it starts again

    ours = asked(steps, (1.0, 1.0), budget=60, seed=1)
    assert ours == asked(steps, (1.0, 1.0), budget=60, seed=1)
    assert ours[:40] == asked(steps, (1.0, 1.0), budget=40, seed=1)
    assert ours != asked(steps, (1.0, 1.0), budget=60, seed=2)


@pytest.mark.parametrize("constant", [0.0, 1e300, -1e-300])
def test_a_score_that_never_changes_ends_all_the_same(constant: float) -> None:
    assert len(asked(lambda _weights: constant, (1.0, 1.0), budget=30)) == 30


def test_a_range_with_fewer_weights_than_the_budget_ends() -> None:
    found = asked(lambda weights: weights[0], (1e-4,), budget=40, low=0.0, high=3e-4)
    assert set(found) <= {(0.0,), (1e-4,), (2e-4,), (3e-4,)}
