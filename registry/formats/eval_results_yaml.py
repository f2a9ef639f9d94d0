"""Hugging Face's ``.eval_results/*.yaml``, the successor of ``model-index``.

::

    - dataset: {id: Idavidrein/gpqa, task_id: gpqa_diamond}
      value: 0.412
      date: "2025-01-15T10:30:00Z"

An entry has a benchmark and a value but no metric: the benchmark decides what it measures. So the task is
``Idavidrein/gpqa:gpqa_diamond`` and the metric is called ``score``. The form:
https://github.com/huggingface/hub-docs/blob/main/eval_results.yaml
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from registry.domain.evaluation import Evaluation, usual_direction
from registry.formats.plain_data import mapping, sequence, text
from registry.formats.scores import file_name, score, utc_time

SUITE = "eval-results"
METRIC = "score"


def read_eval_results(document: object, *, where: str) -> tuple[Evaluation, ...]:
    """Every entry with a benchmark and a number; none if there is none. Raises for a score that is not finite."""
    return tuple(_evaluations(document, where))


def _evaluations(document: object, where: str) -> Iterator[Evaluation]:
    for entry in map(mapping, sequence(document)):
        task = _task(mapping(entry.get("dataset")))
        if task is None:
            continue
        value = score(entry.get("value"), f"the value of {task}", where=where)
        if value is not None:
            yield Evaluation(
                suite=SUITE,
                task=task,
                metric=METRIC,
                value=value,
                higher_is_better=usual_direction(METRIC),
                source=file_name(where),
                at=utc_time(entry.get("date")),
            )


def _task(dataset: Mapping[str, object]) -> str | None:
    benchmark, task = text(dataset.get("id")), text(dataset.get("task_id"))
    return f"{benchmark}:{task}" if benchmark and task else benchmark
