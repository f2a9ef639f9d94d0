"""What transformers' Trainer, and every tool built on it, leaves behind.

``trainer_state.json``; ``all_results.json`` and its parts ``train_results.json``, ``eval_results.json``,
``predict_results.json``; and LLaMA-Factory's ``trainer_log.jsonl``.

How a name becomes a metric and a split: ``eval_wer`` is ``wer`` on ``eval``, ``test_…`` and ``predict_…`` are ``test``
(one is the Trainer's prefix, the other the example scripts'), ``train_loss`` is ``loss`` on ``train``. A name without
a prefix counts only if its direction is common knowledge (``perplexity``). Times, speeds and sizes are not scores;
``eval_samples`` is the n of every ``eval`` score. What a log says last about a metric is what it says.

A loss logged on the way is an average over a few batches, not a score: a log that has nothing else has no score.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from registry.domain.evaluation import Evaluation, usual_direction
from registry.formats.hyperparameters import fact_number, fact_text
from registry.formats.plain_data import count, mapping, sequence
from registry.formats.scores import file_name, score

SUITE = "trainer"

_SPLITS = {"eval": "eval", "test": "test", "predict": "test", "train": "train"}
_PREFIX = re.compile(rf"({'|'.join(_SPLITS)})_(.+)", re.DOTALL)
_NOT_SCORES = re.compile(
    r"(?:.*_)?(?:runtime|samples|samples_per_second|steps_per_second|tokens_per_second|tokens_per_sec"
    r"|model_preparation_time|jit_compilation_time|num_tokens|num_input_tokens_seen|total_flos|epoch|steps?|learning_rate"
    r"|grad_norm|batch_size)|(?:init_|before_init_)?mem_.*",
    re.DOTALL,
)

_STATE_NUMBERS = ("best_metric", "epoch", "total_flos")
_STATE_COUNTS = (
    "best_global_step",
    "global_step",
    "max_steps",
    "num_input_tokens_seen",
    "num_train_epochs",
    "train_batch_size",
)
_RESULT_NUMBERS = ("epoch", "eval_loss", "total_flos", "train_loss", "train_runtime")
_RESULT_COUNTS = ("eval_samples", "num_input_tokens_seen", "train_samples")


def is_trainer_state(document: Mapping[str, object]) -> bool:
    return isinstance(document.get("log_history"), list)


def read_trainer_results(document: Mapping[str, object], *, where: str) -> tuple[Evaluation, ...]:
    """The scores of ``all_results.json`` and its parts; none if there is none. Raises for one that is not finite."""
    return tuple(_scores(document, where))


def read_trainer_state(document: Mapping[str, object], *, where: str) -> tuple[Evaluation, ...]:
    """The last value of every ``eval_…`` metric, and the mean training loss if the run came to its end."""
    return tuple(_scores(_last_scores(sequence(document.get("log_history"))), where))


def read_trainer_log(entries: Iterable[object], *, where: str) -> tuple[Evaluation, ...]:
    """LLaMA-Factory's log, one object a line: the last value of every ``eval_…`` metric."""
    return tuple(_scores(_last_scores(entries), where))


def state_facts(document: Mapping[str, object]) -> dict[str, object]:
    """Where the run ended, its best checkpoint, and the last losses of its log."""
    log = sequence(document.get("log_history"))
    return (
        _log_facts(log)
        | _numbers(document, _STATE_NUMBERS)
        | _counts(document, _STATE_COUNTS)
        | {name: found for name in ("best_model_checkpoint",) if (found := fact_text(document.get(name))) is not None}
    )


def result_facts(document: Mapping[str, object]) -> dict[str, object]:
    return _numbers(document, _RESULT_NUMBERS) | _counts(document, _RESULT_COUNTS)


def log_facts(entries: Iterable[object]) -> dict[str, object]:
    """LLaMA-Factory's ``trainer_log.jsonl``: how far it came, and its last losses."""
    rows = [mapping(entry) for entry in entries]
    last = rows[-1] if rows else {}
    steps = {"global_step": count(last.get("current_steps")), "max_steps": count(last.get("total_steps"))}
    return (
        _log_facts(rows)
        | {name: found for name, found in steps.items() if found is not None}
        | _numbers(last, ("epoch",))
    )


def _scores(document: Mapping[str, object], where: str) -> Iterator[Evaluation]:
    for name, raw in document.items():
        prefix = _PREFIX.fullmatch(name)
        written, metric = (prefix[1], prefix[2]) if prefix else (None, name)
        if _NOT_SCORES.fullmatch(metric) or (prefix is None and usual_direction(metric) is None):
            continue
        value = score(raw, name, where=where)
        if value is not None:
            yield Evaluation(
                suite=SUITE,
                metric=metric,
                value=value,
                n=count(document.get(f"{written}_samples")),
                higher_is_better=usual_direction(metric),
                split=_SPLITS[written] if written else None,
                source=file_name(where),
            )


def _last_scores(log: Iterable[object]) -> dict[str, object]:
    last: dict[str, object] = {}
    for row in map(mapping, log):
        last |= {name: value for name, value in row.items() if _PREFIX.fullmatch(name)}
    return last


def _log_facts(log: Iterable[object]) -> dict[str, object]:
    last: dict[str, object] = {}
    for row in map(mapping, log):
        last |= {name: row[name] for name in ("loss", "train_loss", "eval_loss", "train_runtime") if name in row}
    found = _numbers(last, ("eval_loss", "train_loss", "train_runtime"))
    running = fact_number(last.get("loss"))
    return found if running is None else {**found, "last_loss": running}


def _numbers(document: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    return {name: found for name in names if (found := fact_number(document.get(name))) is not None}


def _counts(document: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    return {name: found for name in names if (found := count(document.get(name))) is not None}
