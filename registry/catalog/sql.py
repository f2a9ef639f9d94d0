"""The catalog over SQL: SQLite by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, func
from sqlmodel import Session, SQLModel, col, select

from registry.catalog import bases, schema
from registry.catalog.apply import PUBLISH, replay
from registry.catalog.engine import reading, sqlite_engine, writing
from registry.catalog.events import Event, broken_links, parse_segment
from registry.catalog.journal import Journal, make_directory
from registry.catalog.resolve import aliases_of, evaluations_of, find_version, resolve, version_of, versions_of
from registry.catalog.search import search
from registry.catalog.tables import AdapterRow, AuditRow, BaseRow, BlobRow, VersionRow
from registry.catalog.verify import problems
from registry.catalog.writer import SqlWriter, head
from registry.domain.base_model import StoredBase
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.version import AliasMove, AuditEntry, Version
from registry.errors import CorruptionError, NotFoundError, RegistryError, UnavailableError

_PAGE = 500


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class SqlCatalog:
    """See :class:`registry.catalog.protocol.Catalog`. ``path=None`` keeps everything in memory.

    Nothing is created before the first write: a registry that is not there yet reads as an empty one. ``manifest_of`` answers
    None for a manifest that is gone; a writer needs it to carry out what the journal holds beyond the catalog.
    """

    def __init__(
        self,
        path: Path | None,
        journal: Journal,
        *,
        actor: str = "",
        now: Callable[[], str] = utc_now,
        manifest_of: Callable[[Digest], Manifest | None] = lambda _digest: None,
    ) -> None:
        self._path = path
        self._journal = journal
        self._actor = actor
        self._now = now
        self._manifest_of = manifest_of
        self._engine = sqlite_engine(path)
        self._ready = False

    def prepare(self) -> None:
        self._refuse_lost_catalog()
        if self._path is not None:
            try:
                make_directory(self._path.parent)
            except OSError as error:
                raise UnavailableError(
                    f"cannot make the registry at {self._path.parent}: {error.strerror}",
                    hint="choose another place with --registry or ADAPTERS_REGISTRY",
                ) from error
        if not self._ready:
            schema.ensure(self._engine)
            self._ready = True

    def exists(self) -> bool:
        """A file may exist without tables while its first writer is at work."""
        if self._ready:
            return True
        if self._path is None or not self._path.exists():
            return False
        with reading(self._engine) as connection:
            revision = schema.current(connection)
            schema.check(connection)
        if revision is not None and revision != schema.HEAD:
            schema.ensure(self._engine)
        self._ready = revision is not None
        if not self._ready and len(list(islice(self._journal.firsts(), 2))) > 1:
            raise self._lost()
        return self._ready

    @contextmanager
    def writing(self) -> Iterator[SqlWriter]:
        self.prepare()
        recorded: int | None = None
        try:
            with self._transaction() as session:
                self._catch_up(session)
                writer = SqlWriter(session, actor=self._actor, now=self._now)
                yield writer
                session.flush()
                if writer.segment:
                    recorded = writer.first
                    self._journal.write(writer.first, writer.segment)
        except BaseException:
            if recorded is not None:
                with suppress(RegistryError):
                    self._take_back(recorded)
            raise

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """The write transaction of the file that has the catalog's name: a rebuild may change it while this one waits."""
        while True:
            file = self._file()
            with writing(self._engine) as connection:
                if self._file() == file or file is None:
                    with Session(bind=connection) as session:
                        yield session
                    return

    def _file(self) -> tuple[int, int] | None:
        if self._path is None or not _is_there(self._path):
            return None
        status = self._path.stat()
        return (status.st_dev, status.st_ino)

    def _catch_up(self, session: Session) -> None:
        """Carry out what the journal holds beyond the catalog: of a writer that was killed before its commit, or all since
        the backup that somebody put in the catalog's place. Nothing acknowledged is lost, no number used twice.

        A killed writer whose manifest is gone as well has nothing left to carry out; its segment will be replaced.
        """
        sequence, previous = head(session)
        if not self._is_ours(session, sequence):
            raise _foreign()
        while segment := self._journal.read(sequence + 1):
            events = parse_segment(segment)
            manifests = {
                str(event.facts["digest"]): self._manifest_of(Digest(str(event.facts["digest"])))
                for event in events
                if event.action == PUBLISH
            }
            if events[0].previous != previous or None in manifests.values():
                if events[0].previous == previous and self._journal.read(sequence + 1 + len(events)) is None:
                    return
                raise _foreign()
            self._journal.settle(sequence + 1)
            replay(session, events, manifests.get)
            sequence, previous = head(session)

    def _is_ours(self, session: Session, sequence: int) -> bool:
        """Whether the journal's last segment within the catalog's history ends in an event of that history."""
        for first in range(sequence, 0, -1):
            if segment := self._journal.read(first):
                event = parse_segment(segment)[-1]
                row = session.get(AuditRow, event.sequence)
                return row is not None and row.hash == event.hash
        return True  # nothing to compare with; the doctor says what is missing

    def _take_back(self, first: int) -> None:
        """The commit failed, so the segment before it is nobody's; unless the catalog knows it in spite of the failure, or
        has another by now. Left there, it would come back with a rebuild, and its blobs would not."""
        with self._transaction() as session:
            if head(session)[0] < first:
                self._journal.remove(first)

    def resolve(self, reference: Reference) -> Version:
        with self._reading() as session:
            return resolve(session, reference)

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

    def references(self) -> Iterator[Digest]:
        with self._reading() as session:
            digests = {*session.exec(select(BlobRow.digest).distinct()), *session.exec(select(BaseRow.digest))}
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
            return [*(version.reference for version in versions_of(session, rows)), *(f"base {name}" for name in named)]

    def find_base(self, name: str, revision: str | None) -> StoredBase | None:
        with self._reading() as session:
            return bases.find_base(session, name, revision)

    def bases(self) -> list[StoredBase]:
        with self._reading() as session:
            return bases.all_bases(session)

    def base_aliases(self) -> dict[str, str]:
        with self._reading() as session:
            return bases.base_aliases(session)

    def verify(self, manifest_of: Callable[[Digest], Manifest | None]) -> list[str]:
        with self._reading() as session:
            return list(problems(session, self._journal, manifest_of))

    def sweep(self, *, dry_run: bool) -> list[str]:
        """Remove what killed writers left of journal segments; while this holds the write transaction nobody else writes."""
        found = self._journal.leftovers()
        if dry_run or not found:
            return found
        with self.writing():
            return self._journal.sweep()

    def rebuild(self, manifest_of: Callable[[Digest], Manifest | None]) -> int:
        """Make the tables again from the journal; returns how many events it holds. The old file stays as ``….before``.

        Raises CorruptionError, and changes nothing, if the journal's chain does not hold or ends before the catalog does.
        """
        if self._path is None:
            raise UnavailableError("a catalog in memory cannot be rebuilt")
        with self._held():
            return self._rebuild(self._path, manifest_of)

    def _rebuild(self, path: Path, manifest_of: Callable[[Digest], Manifest | None]) -> int:
        events = self._events()
        if len(events) < self._last_entry():
            raise CorruptionError(
                f"the journal ends with entry {len(events)}, the catalog with {self._last_entry()}",
                hint="restore the journal from a backup; the catalog was left as it is",
            )
        if not events:
            raise CorruptionError(
                "the journal is empty or gone, so there is nothing to make a catalog of",
                code="journal-lost",
                hint="restore the journal from a backup; nothing was changed",
            )
        fresh = path.with_name(path.name + ".rebuilt")
        _discard(fresh)
        try:
            engine = sqlite_engine(fresh)
            schema.ensure(engine)
            with writing(engine) as connection, Session(bind=connection) as session:
                replay(session, events, lambda digest: manifest_of(Digest(digest)))
            _discard(path, only_companions=True)
            if path.exists():
                path.replace(path.with_name(path.name + ".before"))
            fresh.replace(path)
        finally:
            _discard(fresh)
        return len(events)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody writes meanwhile; a catalog that is too damaged to be locked is too damaged to be written."""
        with ExitStack() as stack:
            if self._file() is not None:
                with suppress(CorruptionError):
                    stack.enter_context(writing(self._engine))
            yield

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        self._refuse_lost_catalog()
        with reading(self._engine if self.exists() else _empty()) as connection, Session(bind=connection) as session:
            yield session

    def _events(self) -> list[Event]:
        events = [
            event for first in self._journal.firsts() for event in parse_segment(self._journal.read(first) or b"")
        ]
        broken = next(broken_links(events), None)
        if broken is not None:
            raise CorruptionError(f"the journal cannot be replayed: {broken}", hint="restore the journal from a backup")
        return events

    def _last_entry(self) -> int:
        """The number of the catalog's last audit entry; 0 if it cannot tell."""
        with suppress(RegistryError):
            if self._path is not None and self._path.exists():
                with reading(self._engine) as connection, Session(bind=connection) as session:
                    return session.exec(select(func.max(AuditRow.sequence))).one() or 0
        return 0

    def _refuse_lost_catalog(self) -> None:
        if (
            self._path is not None
            and not _is_there(self._path)
            and next(iter(self._journal.firsts()), None) is not None
        ):
            raise self._lost()

    def _lost(self) -> CorruptionError:
        return CorruptionError(
            f"the catalog {self._path} is gone, but its journal is there",
            code="catalog-lost",
            hint="run `adapters rebuild`: it makes the catalog again from the journal and blobs",
        )

    @staticmethod
    def _require(session: Session, adapter: AdapterName) -> None:
        if session.get(AdapterRow, adapter.key) is None:
            resolve(session, Reference(adapter))


def _foreign() -> CorruptionError:
    return CorruptionError(
        "the journal does not go on from this catalog: an old or foreign one is in its place",
        code="catalog-rolled-back",
        hint="run `adapters rebuild` to bring back what is missing",
    )


def _discard(path: Path, *, only_companions: bool = False) -> None:
    """Remove a database and the files that SQLite keeps beside it."""
    for suffix in ("-journal", "-wal", "-shm", *(() if only_companions else ("",))):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UnavailableError(
            f"cannot look at {path}: {error.strerror}", hint="check the disk and who owns the registry"
        ) from error


def _empty() -> Engine:
    engine = sqlite_engine(None)
    with writing(engine) as connection:
        SQLModel.metadata.create_all(connection)
    return engine


def _entry(row: AuditRow) -> AuditEntry:
    from registry.catalog.events import parse_event

    event = parse_event(row.body)
    return AuditEntry(event.sequence, event.at, event.actor, event.action, event.adapter, event.facts, row.hash)
