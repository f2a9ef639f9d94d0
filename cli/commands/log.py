"""``adapters log``"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, table


def log(
    session: Session,
    name: Annotated[str | None, Argument(metavar="NAME", help="Only this adapter.")] = None,
    limit: Annotated[int, Option(metavar="N", help="Newest entries to show.")] = 50,
) -> None:
    """The audit: every change, newest first, chained by hash.

    Example: adapters log my-lora --json
    """
    entries = session.registry.log(name, limit=limit)
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
        return
    rows = []
    for entry in entries:
        facts = {
            key: value for key, value in entry.body.items() if value and key not in ("findings", "evaluations", "blobs")
        }
        for counted in ("evaluations", "blobs"):
            if isinstance(found := entry.body.get(counted), list):
                facts[counted] = len(found)
        rows.append((entry.sequence, entry.at, entry.actor, entry.action, entry.adapter, facts))
    table(["#", "at", "by", "action", "adapter", "facts"], rows, right=["#"], shrink=["at", "adapter", "facts"])
