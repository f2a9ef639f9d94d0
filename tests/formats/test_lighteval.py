"""lighteval results: the whole task key, the direction and the size from its task's config."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation
from registry.errors import MalformedResultsError
from registry.formats.lighteval import is_lighteval, read_lighteval

RESULTS: dict[str, Any] = {
    "config_general": {"lighteval_sha": "0" * 40, "start_time": 12.5, "end_time": 99.5, "model_name": "m"},
    "results": {
        "leaderboard|gsm8k|5": {"qem": 0.5, "qem_stderr": 0.125},
        "lighteval|summaries|0": {"rouge1": 0.25, "odd_loss": 2.0},
        "all": {"qem": 0.5, "qem_stderr": 0.125},
    },
    "config_tasks": {
        "leaderboard|gsm8k": {
            "metrics": [{"metric_name": "qem", "higher_is_better": True}],
            "evaluation_splits": ["test"],
            "original_num_docs": 1319,
            "effective_num_docs": 64,
        },
        "lighteval|summaries|0": {
            "metric": [{"metric_name": ["rouge1"], "higher_is_better": {"rouge1": False}}],
            "evaluation_splits": ["validation", "test"],
            "effective_num_docs": -1,
        },
    },
}


def test_task_direction_size_and_split_are_read_and_all_is_not() -> None:
    gsm8k, rouge, loss = read_lighteval(RESULTS, where="results_x.json")
    assert gsm8k == Evaluation(
        suite="lighteval",
        task="leaderboard|gsm8k|5",
        metric="qem",
        value=0.5,
        stderr=0.125,
        n=64,
        higher_is_better=True,
        split="test",
        source="results_x.json",
    )
    assert (rouge.higher_is_better, rouge.n, rouge.split) == (False, None, None)
    assert loss.higher_is_better is False


def test_keys_with_colons_find_their_config_too() -> None:
    document = {
        "results": {"leaderboard:arc:challenge:25": {"qem": 0.5}},
        "config_tasks": {"leaderboard:arc:challenge": {"effective_num_docs": 7}},
    }
    (found,) = read_lighteval(document, where="x")
    assert (found.task, found.n) == ("leaderboard:arc:challenge:25", 7)


def test_the_form_is_known_by_its_general_config() -> None:
    assert is_lighteval(RESULTS)
    assert not is_lighteval({"results": {"boolq": {"acc": 0.5}}})


def test_a_score_that_is_not_finite_is_an_error_that_names_task_and_metric() -> None:
    with pytest.raises(MalformedResultsError, match=r"qem of task leaderboard\|gsm8k\|5 is nan"):
        read_lighteval({"results": {"leaderboard|gsm8k|5": {"qem": float("nan")}}}, where="x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from(["a|b|0", "all", "metrics", "metric_name", "higher_is_better", "evaluation_splits"]), i
            )
        ),
        max_leaves=15,
    )
)
def test_any_object_gives_evaluations(document: object) -> None:
    read_lighteval({"results": document, "config_tasks": document}, where="x")
    read_lighteval({"results": {"a|b|0": {"acc": 1}}, "config_tasks": {"a|b": document}}, where="x")
