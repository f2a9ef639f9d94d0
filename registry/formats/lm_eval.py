"""Results of EleutherAI's lm-evaluation-harness, ``results_<time>.json``.

New form (0.4 and later), keys are metric and filter, sizes and directions stand in tables of their own::

    {"results": {"gsm8k": {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": 0.01}},
     "groups": {…}, "configs": {"gsm8k": {"test_split": "test"}}, "higher_is_better": {"gsm8k": {"exact_match": true}},
     "n-samples": {"gsm8k": {"original": 1319, "effective": 100}}, "date": 1749508083.8}

Old form, no filter, no direction and no size::

    {"results": {"boolq": {"acc": 0.5, "acc_stderr": 0.009}}, "versions": {"boolq": 1}}

A group (``mmlu``) has a row in ``results`` as well as in ``groups``; it is read once. The form is told row by row,
since nothing else in the file says it. Source: ``lm_eval/result_schema.py`` of 0.4.13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from registry.domain.evaluation import Evaluation, usual_direction
from registry.formats.plain_data import count, mapping, text
from registry.formats.scores import file_name, score, scores_with_stderr, standard_error, utc_time

SUITE = "lm-evaluation-harness"


def read_lm_eval(document: Mapping[str, object], *, where: str) -> tuple[Evaluation, ...]:
    """Every score, subtasks and groups alike; none if there is none. Raises for a score that is not finite."""
    rows = {**mapping(document.get("groups")), **mapping(document.get("results"))}
    return tuple(evaluation for task, row in rows.items() for evaluation in _row(document, task, mapping(row), where))


def _row(document: Mapping[str, object], task: str, row: Mapping[str, object], where: str) -> Iterator[Evaluation]:
    directions = mapping(mapping(document.get("higher_is_better")).get(task))
    config = mapping(mapping(document.get("configs")).get(task))
    sizes = mapping(mapping(document.get("n-samples")).get(task))
    # The harness evaluates on the test split where a task has one, else on the validation split.
    split = text(config.get("test_split")) or text(config.get("validation_split"))
    n = count(sizes.get("effective")) or count(row.get("sample_len")) or count(row.get("samples"))
    at = utc_time(document.get("date"))
    for metric, filter_name, value, stderr in _scores(row, task, where):
        direction = directions.get(metric)
        yield Evaluation(
            suite=SUITE,
            task=task,
            metric=metric,
            value=value,
            stderr=stderr,
            n=n,
            higher_is_better=direction if isinstance(direction, bool) else usual_direction(metric),
            filter=filter_name,
            split=split,
            source=file_name(where),
            at=at,
        )


def _scores(row: Mapping[str, object], task: str, where: str) -> Iterator[tuple[str, str | None, float, float | None]]:
    if not any("," in key for key in row):
        for metric, value, stderr in scores_with_stderr(row, task, where=where):
            yield metric, None, value, stderr
        return
    for key, raw in row.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or not metric or metric == "bypass" or metric.endswith("_stderr"):
            continue
        found = score(raw, f"{key} of task {task}", where=where)
        if found is not None:
            yield metric, filter_name or None, found, standard_error(row.get(f"{metric}_stderr,{filter_name}"))
