"""``.eval_results/*.yaml``: what huggingface_hub writes is read back."""

from __future__ import annotations

import math

import pytest
import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation
from registry.errors import MalformedResultsError
from registry.formats.eval_results_yaml import read_eval_results
from registry.formats.yaml_text import parse_yaml

ENTRY = st.builds(
    EvalResultEntry,
    dataset_id=st.sampled_from(["cais/hle", "Idavidrein/gpqa"]),
    task_id=st.sampled_from(["default", "gpqa_diamond"]),
    value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100),
    dataset_revision=st.none() | st.just("0" * 39 + "1"),
    date=st.none() | st.just("2025-01-15T10:30:00Z"),
    source_url=st.just("https://example.org/log"),
    source_name=st.none() | st.just("Logs"),
    notes=st.none() | st.just("no-tools"),
)


@given(st.lists(ENTRY, min_size=1, max_size=4))
def test_what_huggingface_hub_writes_is_read_back(entries: list[EvalResultEntry]) -> None:
    text = yaml.dump(eval_result_entries_to_yaml(entries))
    assert read_eval_results(parse_yaml(text, where="x"), where=".eval_results/hle.yaml") == tuple(
        Evaluation(
            suite="eval-results",
            task=f"{entry.dataset_id}:{entry.task_id}",
            metric="score",
            value=float(entry.value),
            higher_is_better=True,
            source="hle.yaml",
            at="2025-01-15T10:30:00.000000Z" if entry.date else None,
        )
        for entry in entries
    )


@pytest.mark.parametrize(
    ("date", "at"),
    [
        ("2025-01-15", "2025-01-15T00:00:00.000000Z"),
        ("2025-01-15T10:30:00+02:00", "2025-01-15T08:30:00.000000Z"),
        ("2025-01-15 10:30", "2025-01-15T10:30:00.000000Z"),
        ("0001-01-01T00:00:00+10:00", None),
        ("soon", None),
        (None, None),
    ],
)
def test_times_are_utc(date: str | None, at: str | None) -> None:
    (found,) = read_eval_results([{"dataset": {"id": "cais/hle"}, "value": 1, "date": date}], where="x")
    assert (found.task, found.at) == ("cais/hle", at)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_benchmark(value: float) -> None:
    with pytest.raises(MalformedResultsError, match=r"^x: the value of cais/hle:default is"):
        read_eval_results([{"dataset": {"id": "cais/hle", "task_id": "default"}, "value": value}], where="x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda i: st.lists(i, max_size=3) | st.dictionaries(st.sampled_from(["dataset", "id", "value", "date"]), i),
        max_leaves=12,
    )
)
def test_any_object_gives_evaluations(document: object) -> None:
    read_eval_results(document, where="x")
    read_eval_results([document], where="x")
