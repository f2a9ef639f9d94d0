"""What clients of the Hub's protocol committed: what an event about it does, and how it is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from registry.catalog.tables import CommitBlobRow, CommitRow
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.names import AdapterName

COMMIT = "commit"
DROP_DRAFTS = "drop-drafts"


def add_commit(session: Session, sequence: int, at: str, actor: str, adapter: str, facts: Mapping[str, Any]) -> None:
    session.merge(
        CommitRow(
            adapter=adapter,
            id=facts["commit"],
            sequence=sequence,
            parent=facts["parent"],
            tree=facts["tree"],
            title=facts["title"],
            author=actor,
            at=at,
            number=facts["version"],
            draft=facts["draft"],
        )
    )
    for digest in {facts["tree"], *facts["files"]}:
        session.merge(CommitBlobRow(digest=digest, adapter=adapter, commit=facts["commit"]))


def forget_commits(session: Session, adapter: str, number: int | None = None) -> None:
    """All of an adapter, or those that hold the files of one version."""
    chosen = select(CommitRow.id).where(CommitRow.adapter == adapter)
    if number is not None:
        chosen = chosen.where(CommitRow.number == number)
    _forget(session, adapter, list(session.exec(chosen)))


def drop_drafts(session: Session, adapter: str, facts: Mapping[str, Any]) -> None:
    _forget(session, adapter, facts["commits"])


def dead_drafts(session: Session, before: str) -> dict[AdapterName, list[str]]:
    """See :meth:`registry.catalog.protocol.Catalog.dead_drafts`."""
    with_drafts = select(CommitRow.adapter).where(col(CommitRow.draft).is_(True))
    rows = session.exec(
        select(CommitRow).where(col(CommitRow.adapter).in_(with_drafts)).order_by(col(CommitRow.sequence).desc())
    )
    needed: set[tuple[str, str | None]] = set()
    found: dict[AdapterName, list[str]] = defaultdict(list)
    for row in rows:
        if not row.draft or row.at >= before or (row.adapter, row.id) in needed:
            needed.add((row.adapter, row.parent))
        else:
            found[AdapterName.parse(row.adapter)].append(row.id)
    return dict(found)


def _forget(session: Session, adapter: str, ids: Collection[str]) -> None:
    for table, column in ((CommitBlobRow, CommitBlobRow.commit), (CommitRow, CommitRow.id)):
        session.exec(delete(table).where(col(table.adapter) == adapter, col(column).in_(ids)))


def digests(session: Session, dead_before: str | None) -> set[str]:
    """What commits need, see :meth:`registry.catalog.protocol.Catalog.references`."""
    drafts = dead_drafts(session, dead_before) if dead_before is not None else {}
    if not drafts:
        return set(session.exec(select(CommitBlobRow.digest).distinct()))
    dead = {(adapter.key, commit) for adapter, ids in drafts.items() for commit in ids}
    rows = session.exec(select(CommitBlobRow.adapter, CommitBlobRow.commit, CommitBlobRow.digest))
    return {digest for adapter, commit, digest in rows if (adapter, commit) not in dead}


def commits_of(session: Session, adapter: AdapterName) -> list[Commit]:
    """Oldest first."""
    rows = session.exec(select(CommitRow).where(CommitRow.adapter == adapter.key).order_by(col(CommitRow.sequence)))
    return [
        Commit(
            row.id,
            row.sequence,
            row.parent,
            Digest(row.tree),
            row.title,
            row.author,
            row.at,
            row.number,
            row.draft,
        )
        for row in rows
    ]
