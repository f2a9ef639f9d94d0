"""The database connection, and what its failures mean.

SQLite before 3.51.3 (and the back-ports 3.44.6, 3.50.7) can corrupt a WAL database when two connections write and
checkpoint at once (sqlite.org/wal.html#walresetbug), so WAL is used on fixed libraries only; elsewhere a rollback
journal with ``synchronous=FULL``.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool, StaticPool

from registry.errors import CorruptionError, InvalidInputError, RegistryError, UnavailableError

#: How long a writer waits for another one, in seconds.
PATIENCE = 30.0


def wal_is_safe(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def sqlite_engine(path: Path | None, *, patience: float = PATIENCE) -> Engine:
    """An engine over one file, or over memory for ``None``. Opening is lazy; no file is made before the first use."""
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(path, timeout=patience, check_same_thread=False),
            poolclass=NullPool,
        )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, so that DDL is transactional and writers can say IMMEDIATE
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        patient(lambda: _begin_write(connection, path) if writing else _begin_read(connection), patience)

    return engine


def patient(attempt: Callable[[], None], patience: float) -> None:
    """Try again while the database is locked. SQLite's own waiting does not cover everything: a reader that meets the
    journal of a writer about to finish is turned away at once."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except exc.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.025))  # noqa: S311 - so that they do not meet again


def _begin_write(connection: Connection, path: Path | None) -> None:
    if path is not None:
        connection.exec_driver_sql(f"PRAGMA journal_mode={'WAL' if wal_is_safe() else 'TRUNCATE'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_read(connection: Connection) -> None:
    """The first read takes the shared lock; while it is held nothing later can be turned away."""
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")
    except exc.OperationalError:
        connection.exec_driver_sql("ROLLBACK")
        raise


def file_stamp(path: Path) -> bytes:
    """What a commit changes in the files of a SQLite database: the counter in the header (bytes 24 to 27, in journal modes
    that roll back), and the beginning of the index beside it (bytes 0 to 47, in WAL mode), see
    sqlite.org/fileformat2.html and sqlite.org/walformat.html. Read without a lock: during a commit it may already be that
    of the transaction which is about to hold."""
    return b"".join(
        _stamp(file, start, count)
        for file, start, count in ((path, 24, 4), (path.with_name(f"{path.name}-shm"), 0, 48))
    )


def _stamp(path: Path, start: int, count: int) -> bytes:
    try:
        with _opening:
            descriptor, inode = _held_open(path)
            return inode.to_bytes(8, "little") + os.pread(descriptor, count, start)
    except FileNotFoundError:
        return b"-"
    except OSError as error:
        raise UnavailableError(f"cannot look at {path}: {error.strerror}", hint="check the disk", path=path) from error


_open: dict[Path, tuple[int, int]] = {}  # descriptor and inode
_opening = Lock()


def _held_open(path: Path) -> tuple[int, int]:
    """A descriptor that stays open. Closing one would take away every lock that this process holds on the file, also those of
    a transaction in another thread, and then two processes would write at once (sqlite.org/howtocorrupt.html, 2.2)."""
    known = _open.get(path)
    if known is not None and known[1] == os.stat(path).st_ino:
        return known
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if known is not None and not os.fstat(known[0]).st_nlink:
        os.close(known[0])  # nobody holds a lock on what has no name any more
    _open[path] = (descriptor, os.fstat(descriptor).st_ino)
    return _open[path]


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent snapshot."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """The one writer; commits at the end, rolls back if an exception passes."""
    with _translated(), engine.connect().execution_options(writing=True) as connection, connection.begin():
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.IntegrityError, exc.ProgrammingError):
        raise  # our mistake, not the database's state
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{error.object!r:.120} is not text that can be kept: it holds half a character",
            code="not-text",
            hint="write it in UTF-8",
        ) from None
    except OverflowError:
        raise InvalidInputError("a number is too large to be kept", code="too-large") from None
    except (exc.DatabaseError, sqlite3.DatabaseError) as error:
        raise _meaning(error) from error
    except UnicodeDecodeError as error:
        raise _damaged("it holds text that is no text") from error


def _meaning(error: Exception) -> RegistryError:
    text = str(getattr(error, "orig", None) or error)
    lowered = text.lower()
    if "locked" in lowered or "busy" in lowered:
        return UnavailableError(
            f"the registry is busy: another writer held it for more than {PATIENCE:.0f} s", hint="try again"
        )
    if any(words in lowered for words in ("malformed", "not a database", "no such table", "no such column")):
        return _damaged(text)
    if "full" in lowered:
        return UnavailableError(
            "the disk is full; nothing was recorded",
            code="no-space",
            hint="free some space, then run the same command again",
        )
    if "readonly" in lowered or "read-only" in lowered:
        return UnavailableError("the registry is read-only", hint="list, show and pull still work; check who owns it")
    return UnavailableError(f"the catalog cannot be used: {text}", hint="check the disk and who owns the registry")


def _damaged(why: str) -> CorruptionError:
    return CorruptionError(
        f"the catalog is damaged: {why}", hint="run `adapters rebuild`: it makes a new one from the journal and blobs"
    )
