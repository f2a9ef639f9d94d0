"""``adapters migrate``"""

from __future__ import annotations

from typer import BadParameter

from cli.context import Session
from cli.rendering import emit, say


def migrate(session: Session) -> None:
    """Bring the catalog to the schema that this version knows.

    In one transaction; a server does not do it by itself. Stop the servers of this registry first. Example: adapters migrate
    """
    if session.is_remote:
        raise BadParameter("a server's catalog is migrated where it lies: give its directory with --registry")
    before, after = session.registry.migrate()
    if session.json:
        emit({"before": before, "after": after})
    elif before == after:
        say(f"the catalog has schema {after}: nothing to do")
    else:
        say(f"the catalog has schema {after}, before {before or 'none'}")
