"""Results of Hugging Face's lighteval, ``results_<date>.json`` (0.13, and the forms before it).

::

    {"config_general": {…}, "results": {"leaderboard|gsm8k|5": {"qem": 0.5, "qem_stderr": 0.01}, "all": {…}},
     "config_tasks": {"leaderboard|gsm8k": {"metrics": [{"metric_name": "qem", "higher_is_better": true}], …}}}

The whole key is the task, number of examples in the prompt included: two scores of one key may be compared, 0-shot
and 5-shot may not. ``all`` averages whatever the run happened to contain, so it is not read. The file names no time:
``start_time`` and ``end_time`` count from the start of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.domain.evaluation import Evaluation, usual_direction
from registry.formats.plain_data import count, mapping, sequence, text
from registry.formats.scores import file_name, scores_with_stderr

SUITE = "lighteval"


def is_lighteval(document: Mapping[str, object]) -> bool:
    return isinstance(document.get("config_general"), dict) and isinstance(document.get("results"), dict)


def read_lighteval(document: Mapping[str, object], *, where: str) -> tuple[Evaluation, ...]:
    """Every score but those of ``all``; none if there is none. Raises for a score that is not finite."""
    found = []
    for task, row in mapping(document.get("results")).items():
        if task == "all":
            continue
        config = _config(mapping(document.get("config_tasks")), task)
        directions = _directions(config)
        splits = sequence(config.get("evaluation_splits"))
        for metric, value, stderr in scores_with_stderr(mapping(row), task, where=where):
            found.append(
                Evaluation(
                    suite=SUITE,
                    task=task,
                    metric=metric,
                    value=value,
                    stderr=stderr,
                    n=count(config.get("effective_num_docs")),
                    higher_is_better=directions.get(metric, usual_direction(metric)),
                    split=text(splits[0]) if len(splits) == 1 else None,
                    source=file_name(where),
                )
            )
    return tuple(found)


def _config(configs: Mapping[str, object], task: str) -> Mapping[str, object]:
    """Configs are listed under the whole key, or under the key without the number of examples."""
    separator = "|" if "|" in task else ":"
    return mapping(configs.get(task)) or mapping(configs.get(task.rpartition(separator)[0]))


def _directions(config: Mapping[str, object]) -> dict[str, bool]:
    """A metric that fills several rows (``rouge``) names each with its own direction."""
    found: dict[str, bool] = {}
    for entry in map(mapping, sequence(config.get("metrics") or config.get("metric"))):
        name, direction = entry.get("metric_name"), entry.get("higher_is_better")
        if isinstance(name, str) and isinstance(direction, bool):
            found[name] = direction
        found |= {key: value for key, value in mapping(direction).items() if isinstance(value, bool)}
    return found
