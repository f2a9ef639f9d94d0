"""Which way is better, what may be compared, and how sure a difference is."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation, combined_stderr, usual_direction

ERRORS = st.floats(0, 1e300)
USUAL_ERRORS = st.floats(1e-9, 1e9)
WHOLE = Evaluation(
    metric="acc",
    value=0.5,
    task="arc",
    suite="lm-eval",
    stderr=0.1,
    n=100,
    higher_is_better=True,
    filter="none",
    split="test",
    source="a.json",
    at="2026-01-01T00:00:00Z",
)


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("acc", True), ("Accuracy", True), ("acc_norm", True), ("eval_accuracy", True), ("f1", True), ("bleu", True),
        ("rougeL", True), ("exact_match", True), ("exact-match", True), ("test_mcc", True), ("pass@1", True),
        ("loss", False), ("eval_loss", False), ("train_loss", False), ("perplexity", False), ("word_perplexity", False),
        ("WER", False), ("cer", False), ("valid_loss", False), ("bits_per_byte", False), ("off_by_one_error", False),
        ("latency", None), ("epoch", None), ("", None), ("accident", None), ("lossless", None),
    ],
)  # fmt: skip
def test_directions_are_common_knowledge_or_unknown(metric: str, higher: bool | None) -> None:
    assert usual_direction(metric) is higher


@given(st.text())
def test_any_name_has_an_answer_whatever_its_case(metric: str) -> None:
    assert usual_direction(metric.upper().lower()) in {True, False, None}
    if metric.isascii():
        assert usual_direction(metric.upper()) is usual_direction(metric.lower())


def combined(one: float, other: float) -> float | None:
    return combined_stderr(Evaluation("acc", 0.5, stderr=one), Evaluation("acc", 0.6, stderr=other))


@given(USUAL_ERRORS, USUAL_ERRORS)
def test_the_error_of_a_difference_is_the_root_of_the_sum_of_squares(one: float, other: float) -> None:
    assert combined(one, other) == pytest.approx(sqrt(one**2 + other**2))


@given(ERRORS, ERRORS)
def test_a_difference_is_no_surer_than_its_parts(one: float, other: float) -> None:
    """Also where the squares leave the range of a float."""
    assert combined(one, other) == combined(other, one)
    assert combined(one, other) >= max(one, other)
    assert combined(one, 0.0) == one


@given(ERRORS)
def test_an_unknown_error_makes_the_difference_unknown(error: float) -> None:
    known, unknown = Evaluation("acc", 0.5, stderr=error), Evaluation("acc", 0.5)
    assert combined_stderr(known, unknown) is combined_stderr(unknown, known) is combined_stderr(unknown, unknown) is None


def test_the_key_is_what_was_measured_and_not_what_came_out() -> None:
    assert WHOLE.key == Evaluation("acc", 0.9, "arc", "lm-eval", filter="none", split="test").key
    for changed in ({"task": "boolq"}, {"suite": None}, {"filter": "strict"}, {"split": None}):
        fields = {"task": "arc", "suite": "lm-eval", "filter": "none", "split": "test", **changed}
        assert Evaluation("acc", 0.5, **fields).key != WHOLE.key


def test_the_document_holds_every_field() -> None:
    assert Evaluation(**WHOLE.document()) == WHOLE  # type: ignore[arg-type]
