"""What transformers' Trainer leaves behind: scores by split, and facts about the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import MalformedResultsError
from registry.formats.json_text import parse_json
from registry.formats.plain_data import mapping
from registry.formats.trainer_state import (
    is_trainer_state,
    log_facts,
    read_trainer_log,
    read_trainer_results,
    read_trainer_state,
    result_facts,
    state_facts,
)

ALL_RESULTS = {
    "epoch": 3.0,
    "eval_loss": 0.5,
    "eval_accuracy": 0.75,
    "eval_runtime": 7.5,
    "eval_samples": 100,
    "eval_samples_per_second": 4.0,
    "eval_steps_per_second": 0.25,
    "eval_model_preparation_time": 0.002,
    "eval_squad_loss": 0.625,
    "perplexity": 1.6487,
    "predict_bleu-4": 12.5,
    "test_wer": 0.125,
    "total_flos": 1e15,
    "train_loss": 0.25,
    "train_runtime": 60.0,
    "train_samples": 900,
    "init_mem_cpu_alloc_delta": 3,
    "whatever": 1.0,
}

LOG = [
    {"loss": 2.0, "learning_rate": 1e-4, "grad_norm": float("nan"), "epoch": 0.5, "step": 10},
    {"eval_loss": 1.5, "eval_wer": 0.5, "eval_runtime": 1.0, "epoch": 1.0, "step": 20},
    {"loss": 1.0, "learning_rate": 5e-5, "epoch": 1.5, "step": 30, "mean_token_accuracy": 0.5},
    {"eval_loss": 1.25, "eval_runtime": 1.0, "epoch": 2.0, "step": 40},
    {"train_loss": 1.5, "train_runtime": 9.0, "total_flos": 5.0, "epoch": 2.0, "step": 40},
]


def test_a_prefix_is_a_split_and_times_speeds_and_sizes_are_no_scores() -> None:
    found = read_trainer_results(ALL_RESULTS, where="out/all_results.json")
    assert [(e.metric, e.split, e.value, e.n, e.higher_is_better) for e in found] == [
        ("loss", "eval", 0.5, 100, False),
        ("accuracy", "eval", 0.75, 100, True),
        ("squad_loss", "eval", 0.625, 100, False),
        ("perplexity", None, 1.6487, None, False),
        ("bleu-4", "test", 12.5, None, None),
        ("wer", "test", 0.125, None, False),
        ("loss", "train", 0.25, 900, False),
    ]
    assert {(e.suite, e.task, e.source) for e in found} == {("trainer", None, "all_results.json")}


def test_the_last_value_of_every_metric_counts() -> None:
    found = read_trainer_state({"log_history": LOG}, where="trainer_state.json")
    assert [(e.metric, e.split, e.value) for e in found] == [
        ("loss", "eval", 1.25),
        ("wer", "eval", 0.5),
        ("loss", "train", 1.5),
    ]


def test_a_loss_logged_on_the_way_is_no_score() -> None:
    assert read_trainer_state({"log_history": LOG[:1]}, where="x") == ()


def test_a_score_that_is_not_finite_is_an_error_that_names_it() -> None:
    with pytest.raises(MalformedResultsError, match="eval_loss is nan"):
        read_trainer_state({"log_history": [{"eval_loss": float("nan")}]}, where="x")


def test_what_the_trainer_saves_is_read_back(tmp_path: Path) -> None:
    from transformers import trainer_callback as callback

    path = tmp_path / "trainer_state.json"
    callback.TrainerState(
        best_metric=1.25,
        best_global_step=40,
        best_model_checkpoint="out/checkpoint-40",
        epoch=2.0,
        global_step=40,
        max_steps=40,
        num_train_epochs=2,
        num_input_tokens_seen=4096,
        train_batch_size=8,
        total_flos=123.0,
        log_history=LOG,
    ).save_to_json(str(path))
    document = mapping(parse_json(path.read_bytes(), where="trainer_state.json"))
    assert is_trainer_state(document)
    assert [e.value for e in read_trainer_state(document, where="x")] == [1.25, 0.5, 1.5]
    assert state_facts(document) == {
        "best_global_step": 40,
        "best_metric": 1.25,
        "best_model_checkpoint": "out/checkpoint-40",
        "epoch": 2.0,
        "eval_loss": 1.25,
        "global_step": 40,
        "last_loss": 1.0,
        "max_steps": 40,
        "num_input_tokens_seen": 4096,
        "num_train_epochs": 2,
        "total_flos": 123.0,
        "train_batch_size": 8,
        "train_loss": 1.5,
        "train_runtime": 9.0,
    }


def test_result_facts_are_sizes_seconds_and_losses() -> None:
    assert result_facts(ALL_RESULTS) == {
        "epoch": 3.0,
        "eval_loss": 0.5,
        "eval_samples": 100,
        "total_flos": 1e15,
        "train_loss": 0.25,
        "train_runtime": 60.0,
        "train_samples": 900,
    }


def test_llama_factory_logs_a_line_a_step() -> None:
    log = [
        {"current_steps": 10, "total_steps": 40, "loss": 2.0, "lr": 1e-4, "epoch": 0.5, "percentage": 25.0},
        {"current_steps": 20, "total_steps": 40, "eval_loss": 1.5, "epoch": 1.0, "elapsed_time": "0:01"},
    ]
    assert log_facts(log) == {"epoch": 1.0, "eval_loss": 1.5, "global_step": 20, "last_loss": 2.0, "max_steps": 40}
    assert [(e.metric, e.split, e.value) for e in read_trainer_log(log, where="x")] == [("loss", "eval", 1.5)]
    assert log_facts([]) == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["eval_loss", "train_loss", "loss", "eval_samples", "epoch", "best_metric", "eval_", "max_steps"]
                ),
                i,
            )
        ),
        max_leaves=12,
    )
)
def test_any_object_gives_finite_numbers_or_the_error(document: object) -> None:
    log = document if isinstance(document, list) else [document]
    state = {**mapping(document), "log_history": log}
    json.dumps([state_facts(state), result_facts(mapping(document)), log_facts(log)], allow_nan=False)
    try:
        found = [*read_trainer_state(state, where="x"), *read_trainer_results(mapping(document), where="x")]
    except MalformedResultsError:
        return
    json.dumps([evaluation.document() for evaluation in found], allow_nan=False)
