"""``adapters eval add|list``"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import counted, emit, note, say, table

_REF = Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")


def add(
    session: Session,
    reference: Annotated[str, _REF],
    sources: Annotated[list[str], Argument(metavar="SOURCE", help="Results files, or metric=value.")],
    task: Annotated[
        str | None, Option(metavar="NAME", help="What was measured, where the source does not say.")
    ] = None,
    suite: Annotated[str | None, Option(metavar="NAME", help="The harness.")] = None,
    split: Annotated[str | None, Option(metavar="NAME", help="train, validation, test …")] = None,
    stderr: Annotated[float | None, Option(metavar="NUMBER", help="Standard error, in the unit of the value.")] = None,
    n: Annotated[int | None, Option("--n", metavar="N", help="Number of examples.")] = None,
    higher_is_better: Annotated[
        bool | None, Option("--higher-is-better/--lower-is-better", help="Direction, where it is not known.")
    ] = None,
) -> None:
    """Add scores: results files, or metric=value.

    Of lm-evaluation-harness, lighteval, model cards, .eval_results, or the Trainer.

    Example: adapters eval add my-lora results.json · adapters eval add my-lora acc=0.81 --task arc_easy
    """
    from registry.operations.evaluate import measured

    found = [
        measured(source, task=task, suite=suite, split=split, stderr=stderr, n=n, higher_is_better=higher_is_better)
        for source in sources
    ]
    version, added = session.registry.add_evaluations(reference, *found)
    if session.json:
        evaluations = [each.document() for one in found for each in one.evaluations]
        emit({"reference": version.reference, "added": added, "evaluations": evaluations})
        return
    say(f"{version.reference}: {counted(added, 'score')} added")
    if not added:
        note("they were there already", quiet=session.quiet)


def list_(session: Session, reference: Annotated[str, _REF]) -> None:
    """The scores of a version, in the order they were added.

    Example: adapters eval list my-lora
    """
    evaluations = session.registry.evaluations(reference)
    if session.json:
        emit([each.document() for each in evaluations])
    elif evaluations:
        table(
            ["suite", "task", "metric", "filter", "value", "±", "n", "split", "source", "at"],
            [
                (e.suite, e.task, e.metric, e.filter, e.value, e.stderr, e.n, e.split, e.source, e.at)
                for e in evaluations
            ],
            right=["value", "±", "n"],
            shrink=["suite", "task", "source", "at"],
        )
    else:
        note("no scores yet: adapters eval add REF SOURCE", quiet=session.quiet)


VERBS: dict[str, Callable[..., None]] = {"add": add, "list": list_}
