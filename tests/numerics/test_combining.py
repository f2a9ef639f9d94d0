"""Laws of the methods that combine deltas, whatever the method; and what sets each apart, on numbers one can follow."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from registry.numerics.combining import COMBINERS, dare, della, ties
from registry.numerics.combining.magnitude import pruned
from registry.numerics.low_rank import balanced, randomized
from registry.plans.combining import EXACTLY, METHODS

ANY = [*COMBINERS]  # a target that one of two adapters has alone is one alone
RANDOM = [name for name, one in COMBINERS.items() if "generator" in one.options]
seeds = st.integers(0, 1 << 16)
factor = st.floats(0.1, 4)


def draw(count: int, seed: int, shape: tuple[int, ...] = (5, 7)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def apply(name: str, deltas: list[Tensor], weights: list[float], density: float = 0.6, seed: int = 3) -> Tensor:
    given_: dict[str, Any] = {"density": density, "generator": torch.Generator().manual_seed(seed)}
    return COMBINERS[name].combine(deltas, weights, **{key: given_[key] for key in COMBINERS[name].options})


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_the_command_line_knows_exactly_these_methods() -> None:
    assert {name: one.options for name, one in COMBINERS.items()} == dict(METHODS)
    assert {name: one.exactly for name, one in COMBINERS.items() if one.exactly} == dict(EXACTLY)


@pytest.mark.parametrize("name", COMBINERS)
def test_a_combiner_takes_what_the_table_says(name: str) -> None:
    parameters = [*inspect.signature(COMBINERS[name].combine).parameters]
    assert parameters == ["deltas", "weights", *COMBINERS[name].options]


@pytest.mark.parametrize("name", COMBINERS)
@given(seed=seeds, c=factor)
def test_it_scales_with_the_weights_and_with_the_deltas(name: str, seed: int, c: float) -> None:
    deltas, weights = draw(2, seed), [0.7, 0.4]
    once = apply(name, deltas, weights)
    same(apply(name, deltas, [weight * c for weight in weights]), once * c)
    same(apply(name, [delta * c for delta in deltas], weights), once * c)


@pytest.mark.parametrize("scale", [1e-9, 1e-12, 1e9])
@pytest.mark.parametrize("name", COMBINERS)
def test_it_scales_over_all_that_a_delta_may_be(name: str, scale: float) -> None:
    deltas, weights = draw(2, 5), [0.7, 0.4]
    same(apply(name, [delta * scale for delta in deltas], weights) / scale, apply(name, deltas, weights))


@pytest.mark.parametrize("name", [name for name in COMBINERS if name not in RANDOM])
@given(seed=seeds)
def test_order_does_not_matter(name: str, seed: int) -> None:
    count = COMBINERS[name].exactly or 3
    deltas, weights = draw(count, seed), [0.7, 0.4, 0.9][:count]
    same(apply(name, deltas[::-1], weights[::-1]), apply(name, deltas, weights))


@pytest.mark.parametrize("name", ANY)
@given(seed=seeds, weight=factor)
def test_one_alone_and_whole_is_itself(name: str, seed: int, weight: float) -> None:
    (delta,) = draw(1, seed)
    if name == "breadcrumbs":
        return  # the largest go whatever the density: see below
    same(apply(name, [delta], [weight], density=1.0), delta * weight)


@pytest.mark.parametrize("name", RANDOM)
def test_a_draw_is_the_same_for_the_same_seed_and_another_for_another(name: str) -> None:
    deltas = draw(2, 0)
    assert torch.equal(apply(name, deltas, [0.5, 0.5], seed=1), apply(name, deltas, [0.5, 0.5], seed=1))
    assert not torch.equal(apply(name, deltas, [0.5, 0.5], seed=1), apply(name, deltas, [0.5, 0.5], seed=2))


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_dropping_is_unbiased(name: str) -> None:
    deltas, rounds = draw(2, 0, (4, 6)), 4000
    total = torch.zeros(4, 6, dtype=torch.float64)
    squares = torch.zeros(4, 6, dtype=torch.float64)
    for seed in range(rounds):
        found = apply(name, deltas, [0.7, -0.3], density=0.5, seed=seed)
        total += found
        squares += found.square()
    mean = total / rounds
    error = ((squares / rounds - mean.square()) / rounds).sqrt()
    wanted = 0.7 * deltas[0] - 0.3 * deltas[1]
    assert bool(((mean - wanted).abs() < 5 * error).all())


def test_ties_averages_those_that_agree() -> None:
    one, other = torch.tensor([[4.0, -2.0, 1.0, 0.0]]), torch.tensor([[2.0, 6.0, -1.0, 3.0]])
    assert ties.agreed([one, other], [1.0, 1.0]).tolist() == [[3.0, 6.0, 0.0, 3.0]]
    assert ties.combine([one, other], [1.0, 1.0], density=0.5).tolist() == [[4.0, 6.0, 0.0, 3.0]]


@given(seeds, st.floats(0.05, 1))
def test_pruning_keeps_the_largest(seed: int, density: float) -> None:
    (delta,) = draw(1, seed)
    found = pruned(delta, density)
    kept = found != 0
    assert int(kept.sum()) == -int(-density * delta.numel() // 1)
    assert torch.equal(found[kept], delta[kept])
    if not bool(kept.all()):
        assert float(delta[kept].abs().min()) >= float(delta[~kept].abs().max())


def test_breadcrumbs_leave_out_both_ends() -> None:
    delta = torch.arange(1.0, 201.0).reshape(10, 20)
    found = apply("breadcrumbs", [delta], [1.0], density=0.5)
    assert sorted(found[found != 0].tolist()) == [float(n) for n in range(99, 199)]


@given(seeds, st.floats(0.1, 0.9))
def test_della_drops_the_small_more_often(seed: int, density: float) -> None:
    (delta,) = draw(1, seed)
    chances = della.chances(delta, density)
    assert float(chances.mean()) == pytest.approx(density)
    assert 0 < float(chances.min()) <= float(chances.max()) < 1
    order = delta.abs().argsort(dim=1)
    assert bool((chances.gather(1, order).diff(dim=1) >= 0).all())


def test_what_is_dropped_is_0_and_what_stays_is_rescaled() -> None:
    delta = torch.ones(50, 50)
    found = dare.dropped(delta, 0.25, torch.Generator().manual_seed(0))
    assert {*found.unique().tolist()} == {0.0, 4.0}
    assert 0.2 < float((found != 0).double().mean()) < 0.3


@given(seeds)
def test_model_stock_trusts_what_agrees(seed: int) -> None:
    (delta,) = draw(1, seed)
    same(apply("model_stock", [delta, delta], [0.5, 0.5]), delta)
    aside = draw(1, seed + 1)[0]
    aside = aside - delta * (aside * delta).sum() / delta.square().sum()
    assert float(apply("model_stock", [delta, aside], [0.5, 0.5]).abs().max()) < 1e-8


@given(seeds, st.floats(0.05, 0.95))
def test_a_way_on_the_sphere_keeps_its_length(seed: int, share: float) -> None:
    one, other = draw(2, seed)
    for name in ("slerp", "karcher"):
        found = apply(name, [one, other], [1 - share, share])
        assert float(found.norm()) == pytest.approx(float((1 - share) * one.norm() + share * other.norm()))
    between = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).acos()
    way = torch.cosine_similarity(one.flatten(), found.flatten(), dim=0).acos()
    assert float(way) == pytest.approx(float(share * between), abs=1e-5)
    same(apply("slerp", [one, other], [1 - share, share]), found)


def test_sce_takes_what_differs_and_erases_the_minority() -> None:
    one, other = torch.tensor([[5.0, 1.0, -3.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    found = apply("sce", [one, other], [1.0, 1.0], density=2 / 3)
    energies = torch.tensor([25.0 + 9.0, 1.0 + 1.0])
    shares = energies / energies.sum()
    assert found[0, 1] == 0
    assert float(found[0, 0]) == pytest.approx(float(5 * shares[0] + 1 * shares[1]))
    assert float(found[0, 2]) == pytest.approx(-3)


@given(seeds, st.integers(1, 5))
def test_a_random_range_finds_the_optimum(seed: int, rank: int) -> None:
    (dense,) = draw(1, seed, (30, 24))
    found = randomized(dense, rank, torch.Generator().manual_seed(seed))
    a, b = balanced(found, rank)
    optimum = float(torch.linalg.vector_norm(torch.linalg.svdvals(dense)[rank:]))
    assert float(torch.linalg.matrix_norm(dense - b @ a)) == pytest.approx(optimum, rel=1e-3)
