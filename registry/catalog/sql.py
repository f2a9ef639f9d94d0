"""The catalog over SQL: SQLite by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from copy import copy
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func
from sqlmodel import Session, SQLModel, select

from registry.catalog import schema
from registry.catalog.apply import PUBLISH, replay
from registry.catalog.engine import file_stamp, reading, sqlite_engine, writing
from registry.catalog.events import Event, broken_links, parse_segment
from registry.catalog.journal import Journal
from registry.catalog.place import discard, is_there, require_own_place
from registry.catalog.reads import SqlReads
from registry.catalog.reserve import Reserve
from registry.catalog.tables import AuditRow
from registry.catalog.verify import problems
from registry.catalog.writer import SqlWriter, head
from registry.disk import make_directory
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest
from registry.domain.moments import utc_now
from registry.errors import CorruptionError, RegistryError, UnavailableError


class SqlCatalog(SqlReads):
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
        self._reserve = Reserve(path) if path is not None else None
        self._ready = False
        self._joined: ExitStack | None = None
        self._writer: SqlWriter | None = None

    def acting(self, actor: str) -> SqlCatalog:
        """The same catalog; what it writes from now on is on record as this actor's."""
        other = copy(self)
        other._actor = actor  # noqa: SLF001 - its own
        return other

    def generation(self) -> bytes:
        """A stamp that every commit changes, of this process or another. Equal before and after an answer was made: the
        answer holds as long as the stamp stays. Costs microseconds and waits for nobody."""
        if self._path is None:
            with reading(self._engine) as connection:
                return str(connection.exec_driver_sql("SELECT total_changes()").scalar()).encode()
        return file_stamp(self._path)

    def prepare(self) -> None:
        self._refuse_lost_catalog()
        if self._path is not None:
            if not is_there(self._path):
                require_own_place(self._path)
            try:
                make_directory(self._path.parent)
            except OSError as error:
                raise UnavailableError(
                    f"cannot make the registry at {self._path.parent}: {error.strerror}",
                    hint="choose another place with --registry or ADAPTERS_REGISTRY",
                    path=self._path.parent,
                ) from error
        if not self._ready:
            schema.ensure(self._engine, self._parents_of)
            self._ready = True

    def revision(self) -> str | None:
        """The schema that it has, None if it is not there. Unlike any other question this one changes nothing."""
        if self._path is not None and not self._path.exists():
            return None
        with reading(self._engine) as connection:
            return schema.current(connection)

    def migrate(self) -> tuple[str | None, str]:
        """Up to the schema of this version, in one write transaction; the one before and the one after. Raises
        UnavailableError for a newer one."""
        before = self.revision()
        self.prepare()
        return before, schema.HEAD

    def require_current(self) -> None:
        """Raises UnavailableError for a schema that is not this version's."""
        if self.revision() is not None:
            with reading(self._engine) as connection:
                schema.require_head(connection)

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
            schema.ensure(self._engine, self._parents_of)
        self._ready = revision is not None
        if not self._ready and len(list(islice(self._journal.firsts(), 2))) > 1:
            raise self._lost()
        return self._ready

    @contextmanager
    def joined(self) -> Iterator[SqlCatalog]:
        """The same catalog, whose transactions are one that ends with this block: what becomes known while they are made can be
        kept elsewhere before any of it holds. If an exception leaves one of them, they are all taken back."""
        with ExitStack() as stack:
            other = copy(self)
            other._joined, other._writer = stack, None  # noqa: SLF001 - its own
            yield other

    @property
    def last_entry(self) -> tuple[int, str] | None:
        """The number and hash of the last entry that the open transaction of a :meth:`joined` catalog makes; None for none."""
        return self._writer.last_entry if self._writer is not None else None

    def holds(self, entry: tuple[int, str]) -> bool:
        """Whether the audit has this entry, also if whoever made it was killed when only the journal had it."""
        if self._has(entry):
            return True
        with self.writing():  # which carries out what the journal holds beyond the catalog
            pass
        return self._has(entry)

    def _has(self, entry: tuple[int, str]) -> bool:
        with self._reading() as session:
            row = session.get(AuditRow, entry[0])
            return row is not None and row.hash == entry[1]

    @contextmanager
    def writing(self) -> Iterator[SqlWriter]:
        if self._joined is None:
            with self._written() as writer:
                yield writer
            return
        if self._writer is None:
            self._writer = self._joined.enter_context(self._written())
        try:
            yield self._writer
        except BaseException as error:
            self._writer = None
            self._joined.__exit__(type(error), error, error.__traceback__)
            raise

    @contextmanager
    def _written(self) -> Iterator[SqlWriter]:
        with self._reserve.spent() if self._reserve else nullcontext(), self._recorded() as writer:
            yield writer

    @contextmanager
    def _recorded(self) -> Iterator[SqlWriter]:
        self.prepare()
        recorded: int | None = None
        try:
            with self._transaction() as session:
                schema.require_unchanged(session.connection())
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
        if self._path is None or not is_there(self._path):
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

    def _parents_of(self, digest: str) -> list[str]:
        manifest = self._manifest_of(Digest(digest))
        return manifest.parents if manifest is not None else []

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

        Raises CorruptionError, and changes nothing, if the journal's chain does not hold or ends before the catalog does; and
        UnavailableError for a catalog of a newer program.
        """
        if self._path is None:
            raise UnavailableError("a catalog in memory cannot be rebuilt")
        with suppress(CorruptionError):  # of what cannot be read nobody knows whose it is
            if self._path.exists():
                with reading(self._engine) as connection:
                    schema.check(connection)
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
        discard(fresh)
        try:
            engine = sqlite_engine(fresh)
            schema.ensure(engine, self._parents_of)
            with writing(engine) as connection, Session(bind=connection) as session:
                replay(session, events, lambda digest: manifest_of(Digest(digest)))
            discard(path, only_companions=True)
            if path.exists():
                path.replace(path.with_name(path.name + ".before"))
            fresh.replace(path)
        finally:
            discard(fresh)
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
        """Looked at again once there is a journal: a first writer makes the catalog before it, perhaps between the two looks."""
        if (
            self._path is not None
            and not is_there(self._path)
            and next(iter(self._journal.firsts()), None) is not None
            and not is_there(self._path)
        ):
            raise self._lost()

    def _lost(self) -> CorruptionError:
        return CorruptionError(
            f"the catalog {self._path} is gone, but its journal is there",
            code="catalog-lost",
            hint="run `adapters rebuild`: it makes the catalog again from the journal and blobs",
            path=self._path,
        )


def _foreign() -> CorruptionError:
    return CorruptionError(
        "the journal does not go on from this catalog: an old or foreign one is in its place",
        code="catalog-rolled-back",
        hint="run `adapters rebuild` to bring back what is missing",
    )


def _empty() -> Engine:
    """A catalog of nothing, in memory: what there is to read before the first write."""
    engine = sqlite_engine(None)
    with closing(engine.raw_connection()) as held:
        connection: Any = held.driver_connection
        connection.deserialize(_empty_database())
    return engine


@cache
def _empty_database() -> bytes:
    """Bytes, since to make the tables takes a hundred times as long as to read them."""
    engine = sqlite_engine(None)
    with writing(engine) as connection:
        SQLModel.metadata.create_all(connection)
    with closing(engine.raw_connection()) as held:
        made: Any = held.driver_connection
        return bytes(made.serialize())
