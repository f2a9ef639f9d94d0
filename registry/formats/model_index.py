"""``model-index``: the scores in a model card's front matter (the older form, which the Trainer still writes).

::

    model-index:
      - name: my-adapter
        results:
          - task: {type: text-generation}
            dataset: {type: openai/gsm8k, name: GSM8K, config: main, split: test}
            metrics: [{type: exact_match, value: 0.5}]

The task of a score is its dataset, ``openai/gsm8k:main``; the metric is its ``type``, or its ``name`` where one result
gives several of a type (``rouge``). Values keep their unit: cards write fractions and per cent alike.
The form: https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from registry.domain.evaluation import Evaluation, usual_direction
from registry.formats.plain_data import mapping, sequence, text
from registry.formats.scores import file_name, score

SUITE = "model-index"
#: Where the form demands a dataset and nobody said one.
UNNAMED = "unspecified"


def read_model_index(model_index: object, *, where: str) -> tuple[Evaluation, ...]:
    """Every metric whose value is a number; none if there is none. Raises for a score that is not finite."""
    # The specification asks for a list; cards with a single mapping exist.
    models = sequence(model_index) or [model_index]
    return tuple(
        evaluation
        for model in models
        for result in map(mapping, sequence(mapping(model).get("results")))
        for evaluation in _result(result, where)
    )


def write_model_index(evaluations: Iterable[Evaluation], *, name: str, task_type: str) -> list[object]:
    """The form that :func:`read_model_index` and ``huggingface_hub.ModelCardData`` read back; empty without a score.

    ``task_type`` is the Hub's (``text-generation``). Standard error and number of examples become the metric's ``args``.
    """
    results: dict[tuple[str, str | None], list[object]] = {}
    for one in evaluations:
        results.setdefault((one.task or UNNAMED, one.split), []).append(_metric(one))
    if not results:
        return []
    return [
        {
            "name": name,
            "results": [
                {"task": {"type": task_type}, "dataset": _dataset(task, split), "metrics": metrics}
                for (task, split), metrics in results.items()
            ],
        }
    ]


def _dataset(task: str, split: str | None) -> dict[str, object]:
    kind, _, config = task.partition(":")
    known = {"config": config if kind else None, "split": split}
    return {"type": kind or task, "name": task, **{key: value for key, value in known.items() if value}}


def _metric(one: Evaluation) -> dict[str, object]:
    found: dict[str, object] = {"type": one.metric, "value": one.value}
    if one.filter is not None:
        found["name"] = f"{one.metric},{one.filter}"
    args = {"stderr": one.stderr, "n": one.n}
    stated = {key: value for key, value in args.items() if value is not None}
    return {**found, "args": stated} if stated else found


def _result(result: Mapping[str, object], where: str) -> Iterator[Evaluation]:
    dataset = mapping(result.get("dataset"))
    task = _task(dataset) or text(mapping(result.get("task")).get("type"))
    metrics = [mapping(metric) for metric in sequence(result.get("metrics"))]
    types = Counter(text(metric.get("type")) for metric in metrics)
    for metric in metrics:
        kind, name = text(metric.get("type")), text(metric.get("name"))
        if kind is None or (types[kind] > 1 and name is not None):
            kind = name
        if kind is None:
            continue
        value = score(metric.get("value"), f"{kind} of {task or 'an unnamed task'}", where=where)
        if value is not None:
            yield Evaluation(
                suite=SUITE,
                task=task,
                metric=kind,
                value=value,
                higher_is_better=usual_direction(kind),
                split=text(dataset.get("split")),
                source=file_name(where),
            )


def _task(dataset: Mapping[str, object]) -> str | None:
    name = text(dataset.get("type")) or text(dataset.get("name"))
    config = text(dataset.get("config"))
    return f"{name}:{config}" if name and config else name
