"""Names that would mean two things: to clients of the Hub's protocol ``NS/A.production`` and ``NS/A.v3`` are an alias and a
version of ``NS/A``, so nobody makes an adapter of that name, nor an alias or an adapter where one has it already.

Only what is new is refused. What older journals hold is replayed as it was; there the alias or the version wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sqlmodel import Session, col, select

from registry.catalog.apply import MOVE_ALIAS
from registry.catalog.events import parse_event
from registry.catalog.resolve import aliases_of
from registry.catalog.tables import AdapterRow, AuditRow
from registry.domain.names import AdapterName, AliasName
from registry.errors import ConflictError

_VERSION = re.compile(r"v[1-9][0-9]{0,8}", re.ASCII)


def require_no_clash(session: Session, adapter: AdapterName, *, aliases: Iterable[str] = ()) -> None:
    """``adapter`` may be made, with these aliases. Raises ConflictError."""
    stem, dot, suffix = adapter.key.rpartition(".")
    owner = session.get(AdapterRow, stem) if dot else None
    if owner is not None:
        shown = f"{owner.namespace}/{owner.name}"
        if _VERSION.fullmatch(suffix):
            raise _clash(adapter, f"version {suffix[1:]} of {shown}")
        if suffix in _aliases_ever(session, owner.key):
            raise _clash(adapter, f"alias {suffix} of {shown}")
    if (taken := next(_below(session, adapter), None)) is not None:
        raise _taken(taken, f"version {taken.rpartition('.')[2][1:]} of {adapter}")
    for alias in aliases:
        require_no_adapter(session, adapter, AliasName(alias))


def require_no_adapter(session: Session, adapter: AdapterName, alias: AliasName) -> None:
    """``alias`` may be made. Raises ConflictError."""
    row = session.get(AdapterRow, f"{adapter.key}.{alias.key}")
    if row is not None and not row.removed:
        raise _taken(f"{row.namespace}/{row.name}", f"alias {alias} of {adapter}")


def _aliases_ever(session: Session, key: str) -> set[str]:
    """In lower case, also those that were removed: whoever used one would get what has its name now."""
    moves = select(AuditRow.body).where(AuditRow.adapter == key, AuditRow.action == MOVE_ALIAS)
    moved = (str(parse_event(body).facts["alias"]).lower() for body in session.exec(moves))
    return {*moved, *(name.lower() for name in aliases_of(session, AdapterName.parse(key)))}


def _below(session: Session, adapter: AdapterName) -> Iterator[str]:
    """The adapters that are called like versions of this one."""
    start = f"{adapter.key}.v"
    rows = select(AdapterRow).where(
        AdapterRow.key > start,
        AdapterRow.key < start + ":",  # one above every digit
        col(AdapterRow.removed).is_(False),
    )
    for row in session.exec(rows):
        if _VERSION.fullmatch(row.key.removeprefix(f"{adapter.key}.")):
            yield f"{row.namespace}/{row.name}"


def _clash(adapter: AdapterName, meaning: str) -> ConflictError:
    return ConflictError(
        f"{adapter} cannot be made: to clients of the Hub's protocol that name is {meaning}",
        code="name-clash",
        hint="choose a name without that dot",
    )


def _taken(taken: str, meaning: str) -> ConflictError:
    return ConflictError(
        f"{meaning} cannot be made: to clients of the Hub's protocol it would be {taken}, which is an adapter",
        code="name-clash",
        hint=f"choose another name, or rename {taken} first",
    )
