"""What float32 explains is not called wrong, and nothing else is let through."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from torch import Tensor

from registry.operations.verify import _ARITHMETIC as ALLOWED
from registry.transforms.verify import beyond_rounding, largest_term, ulps

TYPES = [torch.bfloat16, torch.float16, torch.float32]


def beyond(before: Tensor, exact: Tensor, found: Tensor, dtype: torch.dtype) -> float:
    return beyond_rounding((found - exact).abs(), exact, largest_term(before, exact), dtype)


def merged(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A LoRA of rank 64 that is as large as the weight: before, the float64 sum, and the float32 one as it is stored."""
    torch.manual_seed(0)
    weight = (torch.randn(256, 4096) * 0.02).to(dtype)
    down, up = torch.randn(64, 4096), torch.randn(256, 64) * 0.0025
    exact = weight.double() + up.double() @ down.double()
    return weight.double(), exact, (weight.float() + up @ down).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_merge_is_right_though_some_of_its_sums_nearly_cancel(dtype: torch.dtype) -> None:
    before, exact, found = merged(dtype)
    assert beyond(before, exact, found.double(), dtype) < 4
    if dtype == torch.float32:  # a hundred ulps of what is left of a sum
        assert float(ulps((found.double() - exact).abs(), largest_term(before, exact), dtype).max()) > ALLOWED


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
def test_one_number_off_by_one_is_wrong(dtype: torch.dtype) -> None:
    before, exact, found = merged(dtype)
    row, column = divmod(int(exact.abs().argmax()), 4096)
    found[row, column] = torch.nextafter(found[row, column], torch.tensor(inf, dtype=dtype))
    assert beyond(before, exact, found.double(), dtype) > ALLOWED


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_is_no_number_is_wrong(dtype: torch.dtype, value: float) -> None:
    before, exact, found = merged(dtype)
    found[3, 7] = value
    assert beyond(before, exact, found.double(), dtype) == inf


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_delta_that_is_not_scaled_right_is_wrong(dtype: torch.dtype) -> None:
    before, exact, _ = merged(dtype)
    found = (before + 0.99 * (exact - before)).to(dtype)
    assert beyond(before, exact, found.double(), dtype) > ALLOWED
