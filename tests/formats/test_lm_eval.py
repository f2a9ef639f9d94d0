"""lm-evaluation-harness results: what was measured, on how many examples, how surely, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.domain.evaluation import Evaluation
from registry.errors import MalformedResultsError
from registry.formats.lm_eval import read_lm_eval

NEW: dict[str, Any] = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "sample_len": 1319,
            "exact_match,strict-match": 0.5,
            "exact_match_stderr,strict-match": 0.01,
            "exact_match,flexible-extract": 0.625,
            "exact_match_stderr,flexible-extract": "N/A",
        },
        "mmlu": {"alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.004},
        "wikitext": {"alias": "wikitext", "word_perplexity,none": 8.5, "word_perplexity_stderr,none": float("nan")},
        "probe": {"alias": "probe", "bypass,none": 999, "bypass_stderr,none": "N/A"},
        "heading": {" ": " ", "alias": "heading"},
    },
    "groups": {"mmlu": {"alias": "mmlu", "acc,none": 0.25}, "mmlu_stem": {"alias": " - stem", "acc,none": 0.125}},
    "configs": {
        "gsm8k": {"task": "gsm8k", "test_split": "test", "validation_split": "val"},
        "wikitext": {"validation_split": "validation"},
    },
    "versions": {"gsm8k": 3.0, "mmlu": 2},
    "higher_is_better": {"gsm8k": {"exact_match": True}, "mmlu": {"acc": None}},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 100}},
    "date": 1749508083.8317592,
}
OLD: dict[str, Any] = {
    "results": {"lambada": {"acc": 0.5, "acc_stderr": 0.0125, "ppl": 1.75, "ppl_stderr": 0.5, "curious": 3}},
    "versions": {"lambada": 0},
}


def test_the_new_form_gives_metric_filter_size_split_direction_and_time() -> None:
    found = read_lm_eval(NEW, where="out/results_2025.json")
    assert {(e.task, e.metric, e.filter): e for e in found}["gsm8k", "exact_match", "strict-match"] == Evaluation(
        suite="lm-evaluation-harness",
        task="gsm8k",
        metric="exact_match",
        filter="strict-match",
        value=0.5,
        stderr=0.01,
        n=100,
        higher_is_better=True,
        split="test",
        source="results_2025.json",
        at="2025-06-09T22:28:03.831759Z",
    )


def test_groups_and_their_subtasks_are_read_each_once() -> None:
    keys = [(e.task, e.metric, e.filter) for e in read_lm_eval(NEW, where="x")]
    assert sorted(keys) == [
        ("gsm8k", "exact_match", "flexible-extract"),
        ("gsm8k", "exact_match", "strict-match"),
        ("mmlu", "acc", "none"),
        ("mmlu_stem", "acc", "none"),
        ("wikitext", "word_perplexity", "none"),
    ]


def test_an_error_that_is_no_number_is_unknown() -> None:
    by_key = {(e.task, e.filter): e for e in read_lm_eval(NEW, where="x")}
    assert by_key["gsm8k", "flexible-extract"].stderr is None
    assert by_key["wikitext", "none"].stderr is None


def test_a_direction_the_file_does_not_give_is_common_knowledge() -> None:
    by_task = {e.task: e for e in read_lm_eval(NEW, where="x")}
    assert by_task["mmlu"].higher_is_better is True
    assert by_task["wikitext"].higher_is_better is False
    assert by_task["wikitext"].split == "validation"


def test_the_old_form_has_no_filter_size_or_time() -> None:
    acc, ppl, curious = read_lm_eval(OLD, where="lambada.json")
    assert acc == Evaluation(
        suite="lm-evaluation-harness", task="lambada", metric="acc", value=0.5, stderr=0.0125, higher_is_better=True,
        source="lambada.json",
    )  # fmt: skip
    assert (ppl.metric, ppl.value, ppl.stderr, ppl.higher_is_better) == ("ppl", 1.75, 0.5, False)
    assert (curious.metric, curious.higher_is_better) == ("curious", None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("key", ["acc", "acc,none"])
def test_a_score_that_is_not_finite_is_an_error_that_names_task_and_metric(key: str, value: float) -> None:
    with pytest.raises(MalformedResultsError, match=f"^f.json: {key} of task boolq is ") as refused:
        read_lm_eval({"results": {"boolq": {key: value}}}, where="f.json")
    assert refused.value.code == "score-not-finite"


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], {"a": 0.5}])
def test_what_is_not_a_number_is_not_a_score(value: object) -> None:
    assert read_lm_eval({"results": {"boolq": {"acc,none": value}}}, where="x") == ()


@pytest.mark.parametrize("date", [1e300, -1e300, float("nan"), "yesterday", True, None, 10**400])
def test_a_date_that_is_none_is_left_out(date: object) -> None:
    (found,) = read_lm_eval({"results": {"t": {"acc,none": 1}}, "date": date}, where="x")
    assert found.at is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["results", "groups", "configs", "n-samples", "t", "acc", "acc,none", "acc_stderr,none"]
                ),
                i,
            )
        ),
        max_leaves=15,
    )
)
def test_any_object_gives_evaluations_or_the_error(document: object) -> None:
    whole = {"results": document, "groups": document, "configs": document, "higher_is_better": document,
             "n-samples": document, "date": document}  # fmt: skip
    try:
        found = read_lm_eval(whole, where="x")
    except MalformedResultsError:
        return
    json.dumps([evaluation.document() for evaluation in found], allow_nan=False)
