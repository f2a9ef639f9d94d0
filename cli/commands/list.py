"""``adapters list``"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, note, size, table

if TYPE_CHECKING:
    from registry.domain.version import Version


def list_(
    session: Session,
    text: Annotated[str | None, Argument(metavar="TEXT", help="Part of an adapter's name.")] = None,
    base: Annotated[str | None, Option(metavar="ID", help="Base model; mirrors count as what they mirror.")] = None,
    rank: Annotated[str | None, Option(metavar="R|R..R", help="16, 8..64, 8.., ..64")] = None,
    target: Annotated[
        list[str] | None, Option(metavar="MODULE", help="Must be adapted: q_proj. Repeat for all of several.")
    ] = None,
    type: Annotated[str | None, Option(metavar="TYPE", help="PEFT method: LORA, IA3, …")] = None,
    task: Annotated[str | None, Option(metavar="TYPE", help="Task type: CAUSAL_LM, SEQ_CLS, …")] = None,
    tag: Annotated[list[str] | None, Option(metavar="K[=V]", help="Has this label.")] = None,
    alias: Annotated[str | None, Option(metavar="ALIAS", help="The version this alias points at.")] = None,
    metric: Annotated[
        list[str] | None, Option(metavar="CONDITION", help="acc>=0.8, or arc_easy/acc>=0.8 for one task.")
    ] = None,
    parent: Annotated[str | None, Option(metavar="REF", help="Was made from this version.")] = None,
    sort: Annotated[
        str | None, Option(metavar="KEY", help="name, created, rank, bytes, parameters, or a metric: best first.")
    ] = None,
    reverse: Annotated[bool, Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int, Option(metavar="N", help="Rows of a page, at most 1000.")] = 50,
    after: Annotated[str | None, Option(metavar="REF", help="Continue behind this row.")] = None,
    all_versions: Annotated[
        bool, Option("--all-versions", help="Every version, not the newest of each adapter.")
    ] = False,
) -> None:
    """Find adapters: a row for each, its newest version.

    Yanked versions are left out. Every condition must hold.

    Example: adapters list --base gpt2 --rank 8..64 --metric "acc>=0.8" --sort acc
    """
    page = partial(
        session.registry.list,
        text,
        base=base,
        rank=rank,
        targets=target or (),
        peft_type=type,
        task_type=task,
        tags=tag or (),
        alias=alias,
        metrics=metric or (),
        parent=parent,
        sort=sort,
        reverse=reverse,
        all_versions=all_versions,
    )
    found = page(limit=limit, after=after)
    has_more = len(found) == limit and bool(page(limit=1, after=found[-1].reference))
    if session.json:
        from registry.operations.show import summary_document

        emit([summary_document(version) for version in found])
    elif found:
        table(
            ["adapter", "base", "type", "rank", "targets", "size", "score", "aliases"],
            [_row(version) for version in found],
            right=["rank", "size"],
            shrink=["base", "targets", "score", "aliases"],
        )
    else:
        note(f"nothing found; {_why_not(type, sort)}", quiet=session.quiet)
    if has_more:
        note(f"more with --after {found[-1].reference}", quiet=session.quiet)


def _why_not(type: str | None, sort: str | None) -> str:
    """A word that nobody knows is the likeliest reason."""
    from registry.domain.manifest import MERGED
    from registry.domain.query import SORTS
    from registry.variants.table import PEFT_TYPES

    known = {*PEFT_TYPES, MERGED}
    if type is not None and type.upper() not in known:
        return f"--type {type} is none of {', '.join(sorted(known))}"
    if sort is not None and sort not in SORTS:
        return f"--sort {sort} is none of {', '.join(SORTS)}, so it is taken for a metric, and nothing has such a score"
    return "`adapters push DIR` stores an adapter"


def _row(version: Version) -> tuple[object, ...]:
    summary = version.summary
    score = version.score
    return (
        version.reference + (" (yanked)" if version.yanked is not None else ""),
        summary.base_model.name,
        summary.variant,
        summary.rank,
        summary.target_modules,
        size(summary.bytes),
        f"{score.metric} {score.value:.4g}{f' ({score.task})' if score.task else ''}" if score else None,
        version.aliases,
    )
