"""Conditions as people type them: ``acc>=0.8``, ``arc_easy/acc``, ``8..64``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.query import OPERATORS, SORTS, MetricCondition, MetricName, parse_ranks
from registry.errors import InvalidValueError

RANKS = st.none() | st.integers(0, 10**9 - 1)


@pytest.mark.parametrize(
    ("text", "metric", "task"),
    [
        ("acc", "acc", None),
        (" acc ", "acc", None),
        ("arc_easy/acc", "acc", "arc_easy"),
        ("leaderboard/math/exact_match", "exact_match", "leaderboard/math"),
        ("/acc", "acc", None),
    ],
)
def test_metric_names(text: str, metric: str, task: str | None) -> None:
    assert MetricName.parse(text) == MetricName(metric, task)


@pytest.mark.parametrize("text", ["", " ", "arc_easy/", "/"])
def test_not_metric_names(text: str) -> None:
    with pytest.raises(InvalidValueError):
        MetricName.parse(text)


@pytest.mark.parametrize("symbol", [*OPERATORS, "="])
@pytest.mark.parametrize("spaces", ["", " "])
def test_every_operator_is_read_whole(symbol: str, spaces: str) -> None:
    found = MetricCondition.parse(f"task/acc{spaces}{symbol}{spaces}-1.5e-3")
    assert found == MetricCondition(MetricName("acc", "task"), "==" if symbol == "=" else symbol, -0.0015)


@pytest.mark.parametrize(
    "text",
    ["", "acc", ">=0.8", "acc>=", "acc>=good", "acc>=nan", "acc>=inf",
     "acc>=1e999", "acc=>0.8", "acc!=0.8", "acc<>0.8", "acc>=0.8 0.9", "acc>>1", "task/>1"],
)
def test_not_conditions(text: str) -> None:
    with pytest.raises(InvalidValueError):
        MetricCondition.parse(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_condition_holds_the_number_that_was_written(value: float) -> None:
    assert MetricCondition.parse(f"loss<{value!r}").value == value


@given(RANKS, RANKS)
def test_ranges_are_read_as_written(low: int | None, high: int | None) -> None:
    text = f"{'' if low is None else low}..{'' if high is None else high}"
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        with pytest.raises(InvalidValueError):
            parse_ranks(text)
    else:
        assert parse_ranks(text) == (low, high)


@given(st.integers(0, 10**9 - 1))
def test_one_rank_is_a_range_of_one(rank: int) -> None:
    assert parse_ranks(str(rank)) == (rank, rank)


@pytest.mark.parametrize("text", ["", "..", "a", "8-64", "8...64", "8..64..", " 8", "-8", "8.5", "٨", "8\n", "1" * 20])
def test_not_ranges(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_ranks(text)


def test_only_names_rise_by_nature() -> None:
    assert [name for name, largest_first in SORTS.items() if not largest_first] == ["name"]
