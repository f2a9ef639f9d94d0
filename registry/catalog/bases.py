"""Base models in the catalog: what an event about them does, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, select

from registry.catalog.tables import BaseAliasRow, BaseRow
from registry.domain.base_model import BaseAliases, BaseModelId, StoredBase
from registry.domain.digest import Digest

ADD_BASE = "base"
ALIAS_BASE = "base-alias"


def add_base(session: Session, sequence: int, facts: Mapping[str, Any]) -> None:
    """The same base and revision again takes the place of what was known of it."""
    name, revision = facts["id"], facts["revision"] or ""
    session.merge(BaseRow(key=name.lower(), revision=revision, name=name, digest=facts["digest"], added=sequence))


def alias_base(session: Session, facts: Mapping[str, Any]) -> None:
    name, canonical = facts["name"], facts["canonical"]
    row = session.get(BaseAliasRow, name.lower())
    if canonical is not None:
        session.merge(BaseAliasRow(key=name.lower(), name=name, canonical=canonical, canonical_key=canonical.lower()))
    elif row is not None:
        session.delete(row)


def canonical_of(session: Session, name: str) -> str:
    row = session.get(BaseAliasRow, name.lower())
    return row.canonical if row else name


def names_of(session: Session, name: str) -> list[str]:
    """Every name of the base that ``name`` means, in lower case."""
    canonical = canonical_of(session, name).lower()
    others = session.exec(select(BaseAliasRow.key).where(BaseAliasRow.canonical_key == canonical))
    return sorted({canonical, *others})


def find_base(session: Session, name: str, revision: str | None) -> StoredBase | None:
    """The base under any of its names; without a revision the one that was added last."""
    rows = select(BaseRow).where(col(BaseRow.key).in_(names_of(session, name)))
    if revision is not None:
        rows = rows.where(BaseRow.revision == revision)
    row = session.exec(rows.order_by(col(BaseRow.added).desc()).limit(1)).one_or_none()
    return _base_of(row) if row else None


def all_bases(session: Session) -> list[StoredBase]:
    rows = session.exec(select(BaseRow).order_by(BaseRow.key, col(BaseRow.added).desc()))
    return [_base_of(row) for row in rows]


def base_aliases(session: Session) -> BaseAliases:
    rows = session.exec(select(BaseAliasRow).order_by(BaseAliasRow.key))
    return BaseAliases({row.name: row.canonical for row in rows})


def _base_of(row: BaseRow) -> StoredBase:
    return StoredBase(BaseModelId(row.name, row.revision or None, raw=row.name), Digest(row.digest))
