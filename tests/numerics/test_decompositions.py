"""Decompositions, inner products and angles from factors are those of the products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from registry.numerics.low_rank import (
    Factors,
    balanced,
    decomposed,
    effective_rank,
    inner,
    padded,
    principal_cosines,
    rank_for_energy,
    spectrum,
)

sizes = st.integers(1, 7)
seeds = st.integers(0, 1 << 16)


def factors(out: int, rank: int, inputs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inputs, generator=generator), torch.randn(out, rank, generator=generator)


@given(sizes, sizes, sizes, seeds)
def test_a_decomposition_is_that_of_the_product(out: int, rank: int, inputs: int, seed: int) -> None:
    down, up = factors(out, rank, inputs, seed)
    dense = up.double() @ down.double()
    found = decomposed(down, up)
    values = torch.linalg.svdvals(dense)
    count = len(found.values)
    assert found.values == pytest.approx(values[:count], abs=1e-10)
    assert float(values[count:].sum()) < 1e-10
    assert spectrum(down, up) == pytest.approx(values[:count], abs=1e-10)
    whole = found.left @ torch.diag(found.values) @ found.right
    assert float((whole - dense).abs().max()) < 1e-10


@given(sizes, sizes, sizes, st.integers(1, 7), seeds)
def test_a_truncation_is_as_near_as_any_of_its_rank(out: int, rank: int, inputs: int, kept: int, seed: int) -> None:
    down, up = factors(out, rank, inputs, seed)
    dense = up.double() @ down.double()
    found = decomposed(down, up)
    a, b = balanced(found, kept)
    left = float(torch.linalg.vector_norm(torch.linalg.svdvals(dense)[kept:]))
    assert float(torch.linalg.matrix_norm(dense - b @ a)) == pytest.approx(left, abs=1e-10)
    assert float(torch.linalg.matrix_norm(a)) == pytest.approx(float(torch.linalg.matrix_norm(b)), rel=1e-9, abs=1e-10)


@given(sizes, sizes, sizes, sizes, seeds, st.floats(-3, 3))
def test_an_inner_product_is_that_of_the_products(
    out: int, rank: int, other: int, inputs: int, seed: int, scaling: float
) -> None:
    (down, up), (down2, up2) = factors(out, rank, inputs, seed), factors(out, other, inputs, seed + 1)
    found = inner(Factors(down, up, scaling), Factors(down2, up2, 0.7))
    dense = scaling * up.double() @ down.double(), 0.7 * up2.double() @ down2.double()
    assert found == pytest.approx(float((dense[0] * dense[1]).sum()), rel=1e-9, abs=1e-9)


@given(st.integers(2, 7), sizes, sizes, st.integers(0, 4), seeds)
def test_a_delta_is_at_no_angle_to_itself_however_it_is_factored(out: int, rank: int, inputs: int, more: int, seed: int) -> None:
    """Also where the factors have more columns than the delta has directions, as padded ones do."""
    down, up = (each.double() for each in factors(out, min(rank, out, inputs), inputs, seed))
    rank = down.shape[0]
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)).Q
    other = Factors(padded(turn.mT @ down, (rank + more, inputs)), padded(up @ turn, (out, rank + more)), -0.3)
    found = principal_cosines(Factors(down, up, 1.0), other)
    assert found == pytest.approx(torch.ones(rank, dtype=torch.float64), abs=1e-5)


def test_nothing_is_at_no_angle_to_anything() -> None:
    down, up = factors(5, 2, 4, 1)
    assert principal_cosines(Factors(down, torch.zeros(5, 2), 1.0), Factors(down, up, 1.0)).tolist() == []


def test_angles_are_those_of_the_dense_deltas() -> None:
    """Held against a basis of each by the dense decomposition."""
    (down, up), (down2, up2) = factors(9, 3, 7, 1), factors(9, 2, 7, 2)
    bases = [torch.linalg.svd(b.double() @ a.double())[0][:, : a.shape[0]] for a, b in ((down, up), (down2, up2))]
    wanted = torch.linalg.svdvals(bases[0].mT @ bases[1])
    assert principal_cosines(Factors(down, up, 2.0), Factors(down2, up2, 3.0)) == pytest.approx(wanted, abs=1e-9)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.floats(0.05, 1))
def test_a_rank_for_an_energy_is_the_smallest_that_keeps_it(values: list[float], energy: float) -> None:
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    total = spectrum.square()
    rank = rank_for_energy(spectrum, energy)
    assert float(total[:rank].sum()) >= energy * float(total.sum()) * (1 - 1e-9)
    assert rank == 1 or float(total[: rank - 1].sum()) < energy * float(total.sum())


def test_the_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([5.0])) == pytest.approx(1)
    assert effective_rank(torch.zeros(3)) == 0
