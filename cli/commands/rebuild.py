"""``adapters rebuild``"""

from __future__ import annotations

from cli.context import Session
from cli.rendering import emit, say


def rebuild(session: Session) -> None:
    """Make a lost or damaged catalog again.

    From the journal and the blobs. The old file is kept as catalog.db.before.

    Example: adapters rebuild
    """
    events = session.registry.rebuild()
    if session.json:
        emit({"events": events})
    else:
        say(f"the catalog is back: {events} changes replayed")
