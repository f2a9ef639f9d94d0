"""``adapters gc``"""

from __future__ import annotations

import re
from typing import Annotated

from typer import Option

from cli.context import Session
from cli.rendering import counted, emit, say, size

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def gc(
    session: Session,
    grace: Annotated[str, Option(metavar="TIME", help="Leave alone what is younger: 0, 30m, 24h, 7d.")] = "24h",
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would go, and change nothing.")] = False,
) -> None:
    """Remove blobs that no version reaches.

    And what killed commands left, and uploads that nobody went on with.

    Example: adapters gc --dry-run
    """
    collected = session.registry.gc(grace=seconds(grace), dry_run=dry_run)
    if session.json:
        emit(
            {
                "dry_run": dry_run,
                "blobs": list(collected.blobs),
                "bytes": collected.bytes,
                "leftovers": list(collected.leftovers),
            }
        )
        return
    verb = "would remove" if dry_run else "removed"
    blobs, leftovers = counted(len(collected.blobs), "blob"), counted(len(collected.leftovers), "leftover")
    say(f"{verb} {blobs} ({size(collected.bytes)}) and {leftovers}")


def seconds(text: str) -> float:
    """``24h`` → 86400. Raises InvalidValueError."""
    from registry.errors import InvalidValueError

    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if match is None:
        raise InvalidValueError("duration", text, "a number with s, m, h or d, such as 24h")
    return float(match[1]) * _UNITS[match[2]]
