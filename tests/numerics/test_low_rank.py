"""Norms and distances from factors are those of the products, and exact where nothing differs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from registry.numerics.low_rank import (
    Factors,
    audible,
    decomposed,
    distance,
    evened,
    padded,
    product_norm,
    size_of_terms,
    without_noise,
)
from registry.numerics.precision import is_exact, scaled, unit_roundoff

sizes = st.integers(1, 6)


def factors(out: int, rank: int, inputs: int, scaling: float, seed: int) -> Factors:
    torch.manual_seed(seed)
    return Factors(torch.randn(rank, inputs), torch.randn(out, rank), scaling)


def dense(one: Factors) -> torch.Tensor:
    return one.scaling * (one.up.double() @ one.down.double())


@given(sizes, sizes, sizes, sizes, st.sampled_from([0.0, 0.3, 2.0, -1.5]))
def test_a_distance_is_that_of_the_products(out: int, r: int, s: int, inputs: int, scaling: float) -> None:
    one, other = factors(out, r, inputs, scaling, 0), factors(out, s, inputs, 0.7, 1)
    found = distance(one, other)
    assert found.difference == pytest.approx(
        float(torch.linalg.matrix_norm(dense(one) - dense(other))), rel=1e-9, abs=1e-12
    )
    assert found.norm == pytest.approx(float(torch.linalg.matrix_norm(dense(one))), rel=1e-9, abs=1e-12)
    assert found.magnitude >= found.norm * (1 - 1e-9)


@given(sizes, sizes, sizes, st.integers(0, 4))
def test_padding_changes_nothing_at_all(out: int, r: int, inputs: int, more: int) -> None:
    one = factors(out, r, inputs, 0.3, 0)
    other = Factors(padded(one.down, (r + more, inputs)), padded(one.up, (out, r + more)), 0.3)
    assert distance(one, other).difference == 0.0
    assert torch.equal(dense(one), dense(other)) or torch.allclose(dense(one), dense(other), rtol=1e-14)


def test_padding_is_at_the_end_and_a_copy_of_nothing_else() -> None:
    found = padded(torch.ones(2, 3, dtype=torch.float16), (4, 3))
    assert found.dtype == torch.float16
    assert found.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_the_same_delta_by_other_factors_is_not_far() -> None:
    one = factors(40, 4, 30, 1.0, 0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    other = Factors(turn.mT @ one.down.double(), one.up.double() @ turn, 1.0)
    found = distance(one, other)
    assert 0 < found.difference < 1e-13 * found.norm


def test_a_change_of_one_bit_is_seen() -> None:
    one = factors(40, 4, 30, 1.0, 0)
    up = one.up.clone()
    up[3, 2] = torch.nextafter(up[3, 2], torch.tensor(9.0))
    assert distance(one, Factors(one.down, up, 1.0)).difference > 0


def test_a_norm_of_zeros() -> None:
    assert product_norm(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.float64)) == 0.0


@given(st.sampled_from([torch.bfloat16, torch.float16, torch.float32]), st.integers(-3, 3))
def test_powers_of_two_are_exact_in_every_type(dtype: torch.dtype, exponent: int) -> None:
    torch.manual_seed(0)
    assert is_exact(scaled(torch.randn(50).to(dtype), 2.0**exponent), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_factors_are_not_and_cost_at_most_the_unit_roundoff(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    product = scaled(torch.randn(50).to(dtype), 2**0.5)
    assert not is_exact(product, dtype)
    assert float(((product.to(dtype).double() - product) / product).abs().max()) <= unit_roundoff(dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 300, 4), (400, 20, 16), (64, 512, 60)])
@pytest.mark.parametrize("spread", [0, 6])
def test_what_cancels_is_noise_and_what_is_small_is_not(shape: tuple[int, int, int], spread: int) -> None:
    out, inputs, rank = shape
    generator = torch.Generator().manual_seed(rank)
    scales = torch.logspace(-spread, spread, rank, dtype=torch.float64)
    down = torch.randn(rank, inputs, dtype=torch.float64, generator=generator) * scales.unsqueeze(1)
    up = torch.randn(out, rank, dtype=torch.float64, generator=generator) / scales
    both = torch.cat([down, down]), torch.cat([up, -up], dim=1)
    terms = size_of_terms(both[1], both[0])
    assert terms >= product_norm(both[1].abs(), both[0].abs()) * (1 - 1e-12)
    assert not without_noise(decomposed(*both), terms).values.any()
    assert audible(product_norm(both[1], both[0]), terms) == 0
    left = 1e-12 * terms
    one = torch.ones(out, 1, dtype=torch.float64) / out**0.5, torch.ones(1, inputs, dtype=torch.float64) / inputs**0.5
    found = decomposed(torch.cat([both[0], one[1]]), torch.cat([both[1], one[0] * left], dim=1))
    values = without_noise(found, terms).values
    assert int(values.count_nonzero()) == 1
    assert float(values[0]) == pytest.approx(left, rel=1e-2)


@given(sizes, sizes, sizes, st.integers(-140, 140), st.integers(-140, 140))
def test_evening_out_changes_no_bit_of_the_product(out: int, rank: int, inputs: int, a: int, b: int) -> None:
    one = factors(out, rank, inputs, 1.0, 0)
    down, up = one.down.double() * 10.0**a, one.up.double() * 10.0**b
    up[:, 0] = 0
    even = evened(down, up)
    for k in range(rank):
        assert torch.equal(torch.outer(even[1][:, k], even[0][k]), torch.outer(up[:, k], down[k]))
    largest = even[0].abs().amax(dim=1)[1:] / even[1].abs().amax(dim=0)[1:]
    assert bool(((largest < 4) & (largest > 1 / 4)).all())
    assert torch.equal(even[0][0], down[0])
