"""Adapters as such in the catalog: made before their first version, hidden, removed, renamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from registry.catalog.commits import forget_commits
from registry.catalog.tables import AdapterRow, AliasRow, CommitBlobRow, CommitRow, VersionRow
from registry.domain.names import AdapterName, Namespace, Word
from registry.domain.version import Adapter

CREATE = "create"
SET_PRIVATE = "visibility"
REMOVE = "remove"
RENAME = "rename"


def adapter_row(session: Session, shown: str) -> AdapterRow:
    """The row under this name, made if it is not there; what was removed is there again."""
    row = session.get(AdapterRow, shown.lower())
    if row is None:
        namespace, _, name = shown.partition("/")
        row = AdapterRow(key=shown.lower(), namespace=namespace, name=name)
        session.add(row)
    row.removed = False
    return row


def create(session: Session, shown: str, facts: Mapping[str, Any]) -> None:
    adapter_row(session, shown).private = facts["private"]


def set_private(session: Session, key: str, facts: Mapping[str, Any]) -> None:
    row = session.get(AdapterRow, key)
    if row is not None:
        row.private = facts["private"]


def remove(session: Session, key: str) -> None:
    """After its versions were deleted one by one, each with its own event."""
    session.exec(delete(AliasRow).where(col(AliasRow.adapter) == key))
    forget_commits(session, key)
    row = session.get(AdapterRow, key)
    if row is not None:
        row.removed = True


def rename(session: Session, key: str, facts: Mapping[str, Any]) -> None:
    """Versions, aliases and commits go under the new name; the old one keeps its count of numbers."""
    old = session.get(AdapterRow, key)
    if old is None:
        raise LookupError(f"{key} is not in the catalog")
    row = adapter_row(session, facts["to"])
    row.private, row.next_number = old.private, max(row.next_number, old.next_number)
    session.flush()
    new = row.key
    for table in (VersionRow, AliasRow, CommitRow, CommitBlobRow):
        session.exec(update(table).where(col(table.adapter) == key).values(adapter=new))
    old.removed = True


def find_adapter(session: Session, name: AdapterName) -> Adapter | None:
    row = session.get(AdapterRow, name.key)
    return _adapter(row) if row is not None and not row.removed else None


def all_adapters(session: Session, *, namespace: str | None = None) -> list[Adapter]:
    rows = select(AdapterRow).where(col(AdapterRow.removed).is_(False)).order_by(AdapterRow.key)
    if namespace is not None:
        rows = rows.where(col(AdapterRow.key).startswith(f"{namespace.lower()}/", autoescape=True))
    return [_adapter(row) for row in session.exec(rows)]


def has_namespace(session: Session, namespace: str) -> bool:
    """Whether anything is or was in it."""
    keys = select(AdapterRow.key).where(col(AdapterRow.key).startswith(f"{namespace.lower()}/", autoescape=True))
    return session.exec(keys.limit(1)).first() is not None


def _adapter(row: AdapterRow) -> Adapter:
    return Adapter(AdapterName(Namespace(row.namespace), Word(row.name)), row.private)
