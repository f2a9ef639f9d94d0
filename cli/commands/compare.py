"""``adapters compare``"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from cli.context import Session
from cli.rendering import emit, note, table

if TYPE_CHECKING:
    from registry.operations.compare import Difference


def compare(
    session: Session,
    references: Annotated[list[str], Argument(metavar="REF", help="The first is what the others are compared with.")],
) -> None:
    """Scores side by side, and which differences are noise.

    A difference with a star exceeds the combined standard error.

    Example: adapters compare my-lora:production my-lora
    """
    from registry.errors import InvalidInputError

    if len(references) < 2:
        raise InvalidInputError("compare needs two references or more", hint="adapters compare my-lora@1 my-lora@2")
    comparison = session.registry.compare(*references)
    if session.json:
        emit(comparison.document())
        return
    if not comparison.rows:
        note("none of them has a score: adapters eval add REF SOURCE", quiet=session.quiet)
        return
    named = Counter((row.example.task, row.example.metric) for row in comparison.rows)
    headers = ["suite", "task", "metric", "split"]
    for index, version in enumerate(comparison.versions):
        headers += [version.reference] if index == 0 else [version.reference, "Δ"]
    rows = []
    for row in comparison.rows:
        example = row.example
        alike = named[example.task, example.metric] > 1
        filtered = example.filter and (alike or example.filter != "none")
        metric = f"{example.metric} ({example.filter})" if filtered else example.metric
        suite, split = (example.suite, example.split) if alike else (None, None)
        cells: list[object] = [suite, example.task, metric, split]
        for index, evaluation in enumerate(row.evaluations):
            cells.append(_value(evaluation.value, evaluation.stderr) if evaluation else "–")
            if index:
                cells.append(_difference(row.differences[index - 1]))
        rows.append(cells)
    table(headers, rows)
    if any(each is not None and each.exceeds_stderr for row in comparison.rows for each in row.differences):
        note("* exceeds the combined standard error", quiet=session.quiet)


def _value(value: float, stderr: float | None) -> str:
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    verdict = {True: " better", False: " worse", None: ""}[difference.better]
    return f"{difference.delta:+.4f}{'*' if difference.exceeds_stderr else ''}{verdict}"
