"""``adapters log``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, note, table


def log(
    session: Session,
    name: Annotated[str | None, Argument(metavar="NAME", help="Only this adapter.")] = None,
    limit: Annotated[int, Option(metavar="N", min=1, help="Newest entries to show.")] = 50,
) -> None:
    """The audit: every change, newest first, chained by hash.

    Example: adapters log my-lora --json
    """
    found = session.registry.log(name, limit=limit + 1)
    entries = found[:limit]
    if session.json:
        emit(
            [
                {
                    "sequence": entry.sequence,
                    "at": entry.at,
                    "actor": entry.actor,
                    "action": entry.action,
                    "adapter": entry.adapter,
                    "facts": dict(entry.body),
                    "hash": entry.hash,
                }
                for entry in entries
            ]
        )
    else:
        rows = [(one.sequence, one.at, one.actor, one.action, one.adapter, _facts(one.body)) for one in entries]
        table(["#", "at", "by", "action", "adapter", "facts"], rows, right=["#"], shrink=["facts"])
    if len(found) > limit:
        note(f"only the newest {limit:,} of them; more with --limit {10 * limit}", quiet=session.quiet)


def _facts(body: Mapping[str, object]) -> dict[str, object]:
    """What fits a line: of long lists how long they are."""
    facts = {key: value for key, value in body.items() if value and key not in ("findings", "evaluations", "blobs")}
    lists = {key: body.get(key) for key in ("evaluations", "blobs")}
    return {**facts, **{key: len(found) for key, found in lists.items() if isinstance(found, list)}}
