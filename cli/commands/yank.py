"""``adapters yank`` and ``adapters unyank``"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, say

_REF = Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")


def yank(
    session: Session,
    reference: Annotated[str, _REF],
    reason: Annotated[str, Option(metavar="TEXT", help="Why; shown to everybody who still uses it.")],
) -> None:
    """Hide a version from search. Who names it exactly still gets it, with a warning.

    Example: adapters yank my-lora@3 --reason "trained on the wrong split"
    """
    version = session.registry.yank(reference, reason)
    if session.json:
        emit({"reference": version.reference, "yanked": True, "reason": reason})
    else:
        say(f"{version.reference} yanked")


def unyank(session: Session, reference: Annotated[str, _REF]) -> None:
    """Undo a yank.

    Example: adapters unyank my-lora@3
    """
    registry = session.registry
    was_yanked = registry.resolve(reference).yanked is not None
    version = registry.unyank(reference)
    if session.json:
        emit({"reference": version.reference, "yanked": False, "reason": None})
    else:
        say(f"{version.reference} is back" if was_yanked else f"{version.reference} was not yanked")
