"""What clients of the Hub's protocol committed: what an event about it does, and how it is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from registry.catalog.tables import CommitBlobRow, CommitRow
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.names import AdapterName

COMMIT = "commit"


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
    ids = list(session.exec(chosen))
    for table, column in ((CommitBlobRow, CommitBlobRow.commit), (CommitRow, CommitRow.id)):
        session.exec(delete(table).where(col(table.adapter) == adapter, col(column).in_(ids)))


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
