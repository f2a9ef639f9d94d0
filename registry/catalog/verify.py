"""Is the catalog what its history says? The tables are compared with a replay of the audit into empty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Select, literal_column, text
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, select

from registry.catalog.apply import replay
from registry.catalog.engine import sqlite_engine, writing
from registry.catalog.events import Event, broken_links, parse_event, parse_segment
from registry.catalog.journal import Journal
from registry.catalog.tables import AuditRow
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest
from registry.errors import CorruptionError

_TABLES = [SQLModel.metadata.tables[name] for name in SQLModel.metadata.tables if name != AuditRow.__tablename__]


def problems(session: Session, journal: Journal, manifest_of: Callable[[Digest], Manifest | None]) -> Iterator[str]:
    """One sentence for each thing that is wrong."""
    if session.connection().dialect.name == "sqlite":
        for line in session.connection().execute(text("PRAGMA integrity_check")).scalars():
            if line != "ok":
                yield f"SQLite finds: {line}"
    rows = session.exec(select(AuditRow).order_by(col(AuditRow.sequence))).all()
    events: list[Event] = []
    try:
        for row in rows:
            event = parse_event(row.body)
            if row.hash != event.hash:
                yield f"audit entry {row.sequence} was edited: its hash is another"
            events.append(event)
    except CorruptionError as error:
        yield error.message
        return
    broken = list(broken_links(events))
    yield from broken
    yield from _journal_problems(journal, events)
    if not broken:
        yield from _differences(session, events, manifest_of)


def _journal_problems(journal: Journal, events: list[Event]) -> Iterator[str]:
    position = 1
    while position <= len(events):
        segment = journal.read(position)
        if segment is None:
            yield f"the journal lacks the segment that begins with entry {position}"
            return
        try:
            kept = parse_segment(segment)
        except CorruptionError as error:
            yield f"journal segment {position}: {error.message}"
            return
        if [event.hash for event in kept] != [event.hash for event in events[position - 1 : position - 1 + len(kept)]]:
            yield f"journal segment {position} does not agree with the audit"
            return
        position += len(kept)
    ahead = [first for first in journal.firsts() if first >= position]
    if len(ahead) > 1:
        yield f"the journal holds {len(ahead)} segments the catalog does not know: an old catalog was put in its place"


def _differences(
    session: Session, events: list[Event], manifest_of: Callable[[Digest], Manifest | None]
) -> Iterator[str]:
    engine = sqlite_engine(None)
    with writing(engine) as connection:
        SQLModel.metadata.create_all(connection)
        with Session(bind=connection) as again:
            replay(again, events, lambda digest: manifest_of(Digest(digest)))
            for columns in _TABLES:
                as_stored: Select[Any] = select_columns(literal_column("*"))
                query = as_stored.select_from(columns).order_by(*columns.primary_key.columns)
                ours = session.connection().execute(query).all()
                theirs = again.connection().execute(query).all()
                if ours != theirs:
                    odd = next((row for row in ours if row not in theirs), None) or next(
                        row for row in theirs if row not in ours
                    )
                    yield f"table {columns.name} is not what the audit says, for example at {tuple(odd)[:3]}"
