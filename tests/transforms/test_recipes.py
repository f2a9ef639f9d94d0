"""A planned tensor made block by block is the one made whole, whatever the formula and however it is stored."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.domain.checkpoint import Shard
from registry.domain.tensors import TensorSpec
from registry.numerics.merging import MERGERS
from registry.plans.merging import Change, Factor, Origin, PlannedTensor
from registry.transforms.recipes import Block, Lazy, Recipe, prepared
from tests.numerics.merging_samples import Sample, sample


def recipe(formula: str, one: Sample, *, transposed: bool) -> Recipe:
    rows, columns = one.weight.shape[::-1] if transposed else one.weight.shape
    factors = {role: Factor(TensorSpec(role, "F64", tuple(each.shape))) for role, each in one.tensors.items()}
    change = Change(0, formula, factors, one.numbers, 0, rows, transposed)
    origin = Origin(Shard(Path("base"), (), {}, 0, 0), TensorSpec("w", "F64", (rows, columns)))

    def load(adapter: int, spec: TensorSpec) -> Tensor:
        assert adapter == 0
        return one.tensors[spec.name]

    return prepared(PlannedTensor("w", "F64", origin, (change,)), load, torch.device("cpu"))


def made(of: Recipe, weight: Tensor, size: int) -> Tensor:
    rows = weight.shape[0]
    blocks = [Block(start, min(start + size, rows)) for start in range(0, rows, size)]
    if of.needs_statistic:
        of.know(torch.stack([of.look(weight[each.start : each.stop], each) for each in blocks]).sum(dim=0))
    return torch.cat([of.apply(weight[each.start : each.stop].clone(), each) for each in blocks])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("formula", MERGERS)
def test_blocks_of_any_size_make_the_whole(formula: str, transposed: bool) -> None:
    one = sample(formula)
    weight = one.weight.T.contiguous() if transposed else one.weight
    straight = made(recipe(formula, one, transposed=False), one.weight, one.weight.shape[0])
    assert not torch.equal(straight, one.weight)
    for size in (len(weight),) if MERGERS[formula].whole and transposed else (1, 2, 3, len(weight)):
        found = made(recipe(formula, one, transposed=transposed), weight, size)
        assert torch.allclose(found.T if transposed else found, straight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("formula", MERGERS)
def test_a_whole_formula_is_never_given_part_of_an_output(formula: str) -> None:
    one = sample(formula)
    blocks = list(recipe(formula, one, transposed=True).blocks(1))
    assert len(blocks) == (1 if MERGERS[formula].whole else one.weight.shape[1])
    assert len(list(recipe(formula, one, transposed=False).blocks(1))) == one.weight.shape[0]


def test_a_change_may_be_about_some_rows_of_a_vector() -> None:
    """The inputs of one group of a convolution."""
    one = sample("ia3_inputs")
    spec = TensorSpec("vector", "F64", (1, 8))
    changes = tuple(
        Change(0, "ia3_inputs", {"vector": Factor(spec, rows=slice(first, first + 4))}, {}, start, start + 3)
        for start, first in ((0, 0), (3, 4))
    )
    origin = Origin(Shard(Path("base"), (), {}, 0, 0), TensorSpec("w", "F64", (6, 4, 2)))
    grouped = prepared(
        PlannedTensor("w", "F64", origin, changes), lambda _, __: one.tensors["vector"], torch.device("cpu")
    )
    vector = one.tensors["vector"].flatten()
    expected = one.weight * torch.stack([vector[:4]] * 3 + [vector[4:]] * 3).repeat_interleave(2, dim=1)
    for size in (1, 2, 4, 6):
        assert torch.equal(made(grouped, one.weight, size), expected)


def test_a_dense_delta_is_made_once_and_given_back_after_its_last_row() -> None:
    made = 0

    def make() -> torch.Tensor:
        nonlocal made
        made += 1
        return torch.zeros(6, 2)

    delta = Lazy(make, rows=6)
    held = weakref.ref(delta.take(2))
    assert held() is not None
    delta.take(3)
    assert (made, held() is not None) == (1, True)
    delta.take(1)
    assert (made, held()) == (1, None)
