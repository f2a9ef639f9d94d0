"""``adapters delete``"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, say


def delete(
    session: Session,
    reference: Annotated[str, Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")],
    reason: Annotated[str, Option(metavar="TEXT", help="Why; kept with the tombstone.")],
) -> None:
    """Delete a version for good. Its number is never used again; `adapters gc` frees the space.

    Example: adapters delete my-lora@3 --reason "contains customer data"
    """
    version = session.registry.delete(reference, reason)
    if session.json:
        emit({"reference": version.reference, "deleted": True, "reason": reason})
    else:
        say(f"{version.reference} deleted")
