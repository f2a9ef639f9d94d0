"""The laws of every formula in MERGERS, and of the turns that some are made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from registry.numerics.merging import IN, MERGERS, OUT, Merger, hra, lokr, oft
from registry.plans.merge_refusals import ADDITIVE
from tests.numerics.merging_samples import INPUTS, OUTPUTS, Sample, sample

every_formula = pytest.mark.parametrize("formula", MERGERS)


def factors_of(merger: Merger, one: Sample) -> dict[str, Tensor]:
    if merger.prepare is not None:
        return dict(merger.prepare(**one.tensors, **{name: one.numbers[name] for name in merger.settings}))
    return {role: each.flatten() if len(merger.axes[role]) == 1 else each for role, each in one.tensors.items()}


def computed(merger: Merger, weight: Tensor, factors: Mapping[str, Tensor], one: Sample, **more: Tensor) -> Tensor:
    """The new weight."""
    numbers = {name: one.numbers[name] for name in merger.numbers}
    if merger.adds:
        return weight + merger.compute(**factors, **numbers)
    if merger.statistic is not None and not more:
        more = {"statistic": merger.statistic(weight, **factors, **numbers)}
    return merger.compute(weight, **factors, **numbers, **more)


def cut(merger: Merger, factors: Mapping[str, Tensor], axis: str, start: int, stop: int) -> dict[str, Tensor]:
    found = dict(factors)
    for role, axes in merger.axes.items():
        for dimension, along in enumerate(axes):
            if along == axis:
                found[role] = found[role].narrow(dimension, start, stop - start)
    return found


def parameters(function: Callable[..., Any], kind: Any) -> set[str]:
    return {name for name, one in inspect.signature(function).parameters.items() if one.kind is kind}


@every_formula
def test_a_formula_takes_its_factors_and_numbers_by_name(formula: str) -> None:
    merger = MERGERS[formula]
    named = {*merger.axes, *merger.numbers}
    statistic = {"statistic"} if merger.statistic is not None else set()
    assert parameters(merger.compute, inspect.Parameter.KEYWORD_ONLY) == named | statistic
    assert parameters(merger.compute, inspect.Parameter.POSITIONAL_OR_KEYWORD) == (set() if merger.adds else {"weight"})
    if merger.statistic is not None:
        assert parameters(merger.statistic, inspect.Parameter.KEYWORD_ONLY) == named
    if merger.prepare is None:
        assert not merger.settings
        assert sample(formula).tensors.keys() == merger.axes.keys()
    else:
        found = parameters(merger.prepare, inspect.Parameter.KEYWORD_ONLY)
        assert {*merger.settings, *sample(formula).tensors} <= found
        assert factors_of(merger, sample(formula)).keys() == merger.axes.keys()


def test_the_plan_knows_which_formulas_add_up() -> None:
    assert {name for name, merger in MERGERS.items() if merger.adds} == ADDITIVE


@every_formula
def test_factors_have_as_many_dimensions_as_axes(formula: str) -> None:
    merger, one = MERGERS[formula], sample(formula)
    sizes = {OUT: one.weight.shape[0], IN: one.weight.shape[1]}
    for role, factor in factors_of(merger, one).items():
        axes = merger.axes[role]
        assert factor.dim() == len(axes)
        assert [size for size, axis in zip(factor.shape, axes, strict=True) if axis] == [
            sizes[axis] for axis in axes if axis
        ]


@every_formula
def test_a_block_cut_out_is_the_block_of_the_whole(formula: str) -> None:
    merger, one = MERGERS[formula], sample(formula)
    factors = factors_of(merger, one)
    whole = computed(merger, one.weight, factors, one)
    assert not torch.allclose(whole, one.weight, rtol=0, atol=1e-3)
    for start, stop in ((0, 1), (0, 4), (2, 5), (5, 6)):
        part = computed(merger, one.weight[start:stop], cut(merger, factors, OUT, start, stop), one)
        assert torch.allclose(part, whole[start:stop], rtol=0, atol=1e-12)
    if merger.whole:
        return
    statistic = {}
    if merger.statistic is not None:
        statistic = {"statistic": merger.statistic(one.weight, **factors, **one.numbers)}
    for start, stop in ((0, 1),) if one.weight.shape[1] == 1 else ((0, 3), (3, 7), (7, 8)):
        block = one.weight[:, start:stop]
        part = computed(merger, block, cut(merger, factors, IN, start, stop), one, **statistic)
        assert torch.allclose(part, whole[:, start:stop], rtol=0, atol=1e-12)


@every_formula
def test_a_formula_leaves_what_it_was_given_as_it_was(formula: str) -> None:
    merger, one = MERGERS[formula], sample(formula)
    factors = factors_of(merger, one)
    held = {**one.tensors, **factors, "weight": one.weight}
    before = {role: each.clone() for role, each in held.items()}
    computed(merger, one.weight, factors, one)
    factors_of(merger, one)
    assert all(torch.equal(each, before[role]) for role, each in held.items())


NEUTRAL: dict[str, dict[str, Callable[[Sample], Any]]] = {
    **{formula: {"scaling": lambda _: 0.0} for formula in (*ADDITIVE, "hira")},
    "dora": {"scaling": lambda _: 0.0, "magnitude": lambda one: one.weight.norm(dim=1)},
    "ia3_outputs": {"vector": lambda one: torch.ones_like(one.tensors["vector"])},
    "ia3_inputs": {"vector": lambda one: torch.ones_like(one.tensors["vector"])},
    "oft": {"angles": lambda one: torch.zeros_like(one.tensors["angles"])},
    "oft_embedding": {"angles": lambda one: torch.zeros_like(one.tensors["angles"])},
    "boft": {"blocks": lambda _: torch.ones(1, 2, 4, 4).double(), "scale": lambda _: torch.ones(OUTPUTS, 1).double()},
    "hra": {"vectors": lambda one: one.tensors["vectors"][:, [0, 0, 1, 1]]},
}


@every_formula
def test_neutral_factors_give_the_weight_back(formula: str) -> None:
    merger, one = MERGERS[formula], sample(formula)
    for role, value in NEUTRAL[formula].items():
        (one.numbers if role in one.numbers else one.tensors)[role] = value(one)
    same = computed(merger, one.weight, factors_of(merger, one), one)
    assert torch.allclose(same, one.weight, rtol=0, atol=1e-14)


sizes = st.integers(1, 4)


@given(rows=sizes, columns=sizes, more_rows=sizes, more_columns=sizes)
def test_lokr_is_the_kronecker_product(rows: int, columns: int, more_rows: int, more_columns: int) -> None:
    w1, w2 = torch.randn(rows, columns).double(), torch.randn(more_rows, more_columns).double()
    found = lokr.delta(**lokr.rows(w1=w1, w2=w2), scaling=0.5)
    assert torch.equal(found, torch.kron(w1, w2) * 0.5)


def turned(terms: float, limit: float = inf) -> Tensor:
    angles = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2
    return oft.rotations(angles=angles, terms=terms, limit=limit)["rotation"]


def test_cayley_turns_without_stretching() -> None:
    blocks = turned(0)
    assert torch.allclose(blocks @ blocks.mT, torch.eye(4).double().expand(3, 4, 4), rtol=0, atol=1e-14)
    assert torch.allclose(torch.linalg.det(blocks), torch.ones(3).double())


def test_the_series_comes_as_near_to_cayley_of_the_other_sign_as_one_likes() -> None:
    errors = [float((turned(terms) - turned(0).mT).abs().max()) for terms in (2, 4, 6, 8, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-14
    assert torch.equal(turned(3), turned(4))  # as PEFT counts them
    assert torch.equal(turned(1), torch.eye(4).double().expand(3, 4, 4))


def test_a_limit_shortens_what_is_longer() -> None:
    free, tight = turned(0), turned(0, limit=0.05)
    assert torch.equal(turned(0, limit=100.0), free)
    far = (free - torch.eye(4)).flatten(1).norm(dim=1)
    near = (tight - torch.eye(4)).flatten(1).norm(dim=1)
    assert bool((near < far).all())
    assert torch.allclose(near, torch.full((3,), 2 * 0.05 / 3**0.5).double(), rtol=1e-2)  # R is nearly I − 2Q


@pytest.mark.parametrize("orthogonal", [0.0, 1.0])
def test_hra_is_its_reflections_one_after_the_other(orthogonal: float) -> None:
    weight, vectors = sample("hra").weight, sample("hra").tensors["vectors"]
    expected = weight
    for unit in (hra.gram_schmidt(vectors) if orthogonal else vectors).T:
        expected = expected - 2 * (expected @ unit).outer(unit) / unit.square().sum()
    found = hra.merged(weight, **hra.chain(vectors=vectors, orthogonal=orthogonal))
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)
    assert torch.allclose(found.norm(dim=1), weight.norm(dim=1))


def test_gram_and_schmidt_keep_what_vectors_span() -> None:
    vectors = torch.randn(INPUTS, 3, generator=torch.Generator().manual_seed(0))
    vectors[:, 1] = vectors[:, 0] + 1e-4 * vectors[:, 1]  # as near to each other as training leaves them
    units = hra.gram_schmidt(vectors).double()
    assert torch.allclose(units.T @ units, torch.eye(3).double(), rtol=0, atol=1e-6)
    for count in (1, 2, 3):
        rest = vectors[:, :count].double() - units[:, :count] @ (units[:, :count].T @ vectors[:, :count].double())
        assert float(rest.abs().max()) < 1e-6
