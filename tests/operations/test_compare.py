"""Versions by the same yardstick: only what was measured alike stands in one row, and a difference has a direction."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.connect import Registry
from registry.domain.evaluation import Evaluation
from registry.errors import NotFoundError
from registry.operations.compare import difference
from registry.operations.evaluate import Measured

NUMBERS = st.floats(-1e100, 1e100)
ERRORS = st.none() | st.floats(0, 1e200)
DIRECTIONS = st.none() | st.booleans()
EVALUATIONS = st.builds(Evaluation, st.just("m"), NUMBERS, stderr=ERRORS, higher_is_better=DIRECTIONS)


def stated(*evaluations: Evaluation) -> Measured:
    return Measured(evaluations)


@given(EVALUATIONS, EVALUATIONS)
def test_better_means_in_the_direction_that_is_known(first: Evaluation, other: Evaluation) -> None:
    found = difference(first, other)
    assert found is not None
    assert found.delta == other.value - first.value
    direction = first.higher_is_better if first.higher_is_better is not None else other.higher_is_better
    if direction is None or found.delta == 0:
        assert found.better is None
    else:
        assert found.better == (other.value > first.value if direction else other.value < first.value)


@given(EVALUATIONS, EVALUATIONS)
def test_a_difference_stands_out_only_beyond_its_own_error(first: Evaluation, other: Evaluation) -> None:
    found, back = difference(first, other), difference(other, first)
    assert found is not None
    assert back is not None
    assert found.exceeds_stderr == back.exceeds_stderr
    if first.stderr is None or other.stderr is None:
        assert found.exceeds_stderr is None
    elif abs(found.delta) <= max(first.stderr, other.stderr):
        assert found.exceeds_stderr is False
    elif abs(found.delta) > first.stderr + other.stderr:
        assert found.exceeds_stderr is True


@given(EVALUATIONS)
def test_nothing_differs_from_itself_nor_from_what_was_not_measured(one: Evaluation) -> None:
    same = difference(one, one)
    assert same is not None
    assert (same.delta, same.better, same.exceeds_stderr) == (0, None, None if one.stderr is None else False)
    assert difference(one, None) is difference(None, one) is difference(None, None) is None


def test_only_what_was_measured_alike_stands_in_one_row(lived: Registry) -> None:
    one = Evaluation("acc", 0.5, "arc", "suite", 0.01, 100, True, "none", "test")  # noqa: FBT003
    lived.add_evaluations("a@1", stated(one))
    for field, value in {"task": "boolq", "suite": "other", "filter": "strict", "split": "train", "metric": "f1"}.items():
        parts = {"metric": "acc", "value": 0.6, "task": "arc", "suite": "suite", "filter": "none", "split": "test"}
        lived.add_evaluations("b", stated(Evaluation(**{**parts, field: value})))
    found = lived.compare("a@1", "b")
    assert len(found.rows) == 6
    assert all(row.differences == (None,) for row in found.rows)
    lived.add_evaluations("b", stated(Evaluation("acc", 0.6, "arc", "suite", filter="none", split="test")))
    differences = [row.differences[0] for row in lived.compare("a@1", "b").rows if row.differences[0]]
    assert [(round(each.delta, 9), each.better, each.exceeds_stderr) for each in differences] == [(0.1, True, None)]


def test_the_latest_measurement_counts(lived: Registry) -> None:
    lived.add_evaluations("a@1", "acc=0.1", "acc=0.5±0.01")
    lived.add_evaluations("b", "acc=0.9", "acc=0.6±0.01")
    (row,) = lived.compare("a@1", "b").rows
    (found,) = row.differences
    assert found is not None
    assert (round(found.delta, 9), found.better, found.exceeds_stderr) == (0.1, True, True)


def test_more_than_two_are_each_compared_with_the_first(lived: Registry) -> None:
    for reference, value in {"a@1": 3, "a@2": 1, "b": 2}.items():
        lived.add_evaluations(reference, f"loss={value}")
    (row,) = [row for row in lived.compare("a@1", "a@2", "b").rows if row.example.metric == "loss"]
    assert [each.delta for each in row.differences if each] == [-2, -1]
    assert [each.better for each in row.differences if each] == [True, True]


def test_the_document_is_json_and_names_what_was_not_measured(lived: Registry) -> None:
    lived.add_evaluations("a@1", "acc=0.5")
    document = lived.compare("a@1", "b").document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["versions"] == ["local/a@1", "local/b@1"]
    assert document["rows"][0]["values"] == [0.5, None]  # type: ignore[index]
    assert document["rows"][0]["differences"] == [None]  # type: ignore[index]


def test_what_is_not_there_is_not_compared(lived: Registry) -> None:
    with pytest.raises(NotFoundError):
        lived.compare("a@1", "nobody")
