"""What a catalog answers, over SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from sqlmodel import Session, col, select

from registry.catalog import adapters, bases, commits, tokens
from registry.catalog.events import parse_event
from registry.catalog.resolve import aliases_of, evaluations_of, find_version, resolve, version_of, versions_of
from registry.catalog.search import search
from registry.catalog.tables import AdapterRow, AuditRow, BaseRow, BlobRow, CommitBlobRow, VersionRow
from registry.domain.access import Token
from registry.domain.base_model import BaseAliases, StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version
from registry.errors import NotFoundError

_PAGE = 500


class SqlReads(ABC):
    """Each answer comes from one consistent snapshot."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Session]: ...

    def resolve(self, reference: Reference) -> Version:
        with self._reading() as session:
            return resolve(session, reference)

    def versions(self, adapter: AdapterName, *, below: int | None = None, limit: int) -> list[Version]:
        """Newest first, without those that are deleted. Raises NotFoundError for an adapter that is not there."""
        with self._reading() as session:
            self._require(session, adapter)
            rows = select(VersionRow).where(VersionRow.adapter == adapter.key, col(VersionRow.deleted).is_(None))
            if below is not None:
                rows = rows.where(VersionRow.number < below)
            return versions_of(session, session.exec(rows.order_by(col(VersionRow.number).desc()).limit(limit)).all())

    def find_version(self, adapter: AdapterName, digest: Digest) -> Version | None:
        with self._reading() as session:
            row = find_version(session, adapter, digest)
            return version_of(session, row) if row else None

    def search(self, query: VersionQuery) -> list[Version]:
        with self._reading() as session:
            return search(session, query)

    def aliases(self, adapter: AdapterName) -> dict[str, int]:
        with self._reading() as session:
            self._require(session, adapter)
            return aliases_of(session, adapter)

    def alias_history(self, adapter: AdapterName, alias: AliasName) -> list[AliasMove]:
        """Oldest first. Raises NotFoundError for an alias that never was."""
        with self._reading() as session:
            self._require(session, adapter)
            rows = session.exec(
                select(AuditRow)
                .where(AuditRow.adapter == adapter.key, AuditRow.action == "alias")
                .order_by(col(AuditRow.sequence))
            ).all()
        moves = []
        for row in rows:
            entry = _entry(row)
            facts = entry.body
            if str(facts["alias"]).lower() == alias.key:
                moves.append(AliasMove(str(facts["alias"]), facts["before"], facts["after"], entry.at, entry.actor))  # type: ignore[arg-type]
        if not moves:
            raise NotFoundError(f"{adapter} never had an alias {alias}", code="unknown-alias")
        return moves

    def evaluations(self, version: Version) -> list[Evaluation]:
        with self._reading() as session:
            return evaluations_of(session, version)

    def audit(self, adapter: AdapterName | None = None, *, limit: int | None = None) -> list[AuditEntry]:
        with self._reading() as session:
            statement = select(AuditRow).order_by(col(AuditRow.sequence).desc()).limit(limit)
            if adapter is not None:
                self._require(session, adapter)
                statement = statement.where(AuditRow.adapter == adapter.key)
            return [_entry(row) for row in session.exec(statement)]

    def live_versions(self) -> Iterator[Version]:
        last = 0
        while True:
            with self._reading() as session:
                rows = session.exec(
                    select(VersionRow)
                    .where(col(VersionRow.id) > last, col(VersionRow.deleted).is_(None))
                    .order_by(col(VersionRow.id))
                    .limit(_PAGE)
                ).all()
                page = versions_of(session, rows)
            if not rows:
                return
            last = rows[-1].id or last
            yield from page

    def dead_drafts(self, before: str) -> Mapping[AdapterName, Sequence[str]]:
        with self._reading() as session:
            return commits.dead_drafts(session, before)

    def references(self, *, dead_before: str | None = None) -> Iterator[Digest]:
        with self._reading() as session:
            digests = {
                *session.exec(select(BlobRow.digest).distinct()),
                *session.exec(select(BaseRow.digest)),
                *commits.digests(session, dead_before),
            }
        return (Digest(digest) for digest in digests)

    def owners(self, digest: Digest) -> list[str]:
        with self._reading() as session:
            rows = session.exec(
                select(VersionRow)
                .join(BlobRow, col(BlobRow.version_id) == VersionRow.id)
                .where(BlobRow.digest == digest)
                .order_by(VersionRow.adapter, col(VersionRow.number))
            ).all()
            named = session.exec(select(BaseRow.name).where(BaseRow.digest == digest)).all()
            held = session.exec(
                select(CommitBlobRow.adapter, CommitBlobRow.commit).where(CommitBlobRow.digest == digest)
            )
            return [
                *(version.reference for version in versions_of(session, rows)),
                *(f"base {name}" for name in named),
                *(f"{adapter} at commit {commit[:12]}" for adapter, commit in held),
            ]

    def holders(self, digest: Digest) -> list[AdapterName]:
        """The adapters with a version or a commit that needs a blob."""
        with self._reading() as session:
            versions = select(VersionRow.adapter).join(BlobRow, col(BlobRow.version_id) == VersionRow.id)
            keys = {
                *session.exec(versions.where(BlobRow.digest == digest)),
                *session.exec(select(CommitBlobRow.adapter).where(CommitBlobRow.digest == digest)),
            }
            return [AdapterName.parse(key) for key in sorted(keys)]

    def find_base(self, name: str, revision: str | None) -> StoredBase | None:
        with self._reading() as session:
            return bases.find_base(session, name, revision)

    def bases(self) -> list[StoredBase]:
        with self._reading() as session:
            return bases.all_bases(session)

    def base_aliases(self) -> BaseAliases:
        with self._reading() as session:
            return bases.base_aliases(session)

    def events(self, after: int, *, limit: int) -> list[AuditEntry]:
        """Oldest first, those numbered above ``after``."""
        with self._reading() as session:
            rows = select(AuditRow).where(AuditRow.sequence > after).order_by(col(AuditRow.sequence)).limit(limit)
            return [_entry(row) for row in session.exec(rows)]

    def find_adapter(self, name: AdapterName) -> Adapter | None:
        with self._reading() as session:
            return adapters.find_adapter(session, name)

    def adapters(self, *, namespace: str | None = None) -> list[Adapter]:
        with self._reading() as session:
            return adapters.all_adapters(session, namespace=namespace)

    def has_namespace(self, namespace: str) -> bool:
        with self._reading() as session:
            return adapters.has_namespace(session, namespace)

    def commits(self, adapter: AdapterName) -> list[Commit]:
        with self._reading() as session:
            return commits.commits_of(session, adapter)

    def find_token(self, token_id: str) -> Token | None:
        with self._reading() as session:
            return tokens.find_token(session, token_id)

    def tokens(self) -> list[Token]:
        with self._reading() as session:
            return tokens.all_tokens(session)

    @staticmethod
    def _require(session: Session, adapter: AdapterName) -> None:
        row = session.get(AdapterRow, adapter.key)
        if row is None or row.removed:
            resolve(session, Reference(adapter))  # raises, with the nearest name


def _entry(row: AuditRow) -> AuditEntry:
    event = parse_event(row.body)
    return AuditEntry(event.sequence, event.at, event.actor, event.action, event.adapter, event.facts, row.hash)
