"""Bugs, planted into the product inside a forked child. The tests of the harness show that each is caught."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import registry.blobs.filesystem as filesystem
import registry.catalog.journal as journal
import registry.catalog.writer as writer
import registry.disk as disk
import registry.operations.fetch as fetching
import registry.operations.publish as publishing
import registry.operations.workplace as workplaces
import registry.verbs.reading as reading
from registry.catalog.sql import SqlCatalog
from registry.catalog.tables import AliasRow
from registry.domain.digest import Digest
from registry.domain.version import AliasMove

PLANTS: dict[str, Callable[[], None]] = {}


def plant(bug: Callable[[], None]) -> Callable[[], None]:
    PLANTS[bug.__name__] = bug
    return bug


@plant
def commit_before_store() -> None:
    """The row first, then the bytes it promises."""
    store = publishing._store

    def publish(submissions: Sequence[Any], *, blobs: Any, catalog: Any, **_: Any) -> list[Any]:
        publishing._store = lambda *_arguments, **_options: None
        with catalog.writing() as open_writer:
            done = [publishing._enter(each, blobs, open_writer, [], ()) for each in submissions]
        for each in submissions:
            store(each.package, blobs, [])
        return done

    publishing.publish = publish


@plant
def files_not_synced() -> None:
    filesystem.os = _Sloppy(lambda descriptor: None)


@plant
def directories_not_synced() -> None:
    disk.sync = filesystem.sync = lambda path: None


@plant
def journal_not_synced() -> None:
    journal.os = _Sloppy(lambda descriptor: None)
    journal.sync = lambda path: None


@plant
def failed_sync_ignored() -> None:
    def sync(descriptor: int) -> None:
        with suppress(OSError):
            os.fsync(descriptor)

    filesystem.os = _Sloppy(sync)


@plant
def failed_sync_repeated() -> None:
    """The second one finds nothing dirty and succeeds, though the bytes are gone (fsyncgate)."""

    def sync(descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            os.fsync(descriptor)

    filesystem.os = _Sloppy(sync)


@plant
def short_write_believed() -> None:
    """One ``write`` and no look at what it answered, nor at what reached the disk."""

    def store(self: Any, digest: Digest, target: Path, chunks: Iterable[bytes]) -> None:
        filesystem.make_directory(target.parent)
        filesystem.make_directory(self._staging)
        staged = self._staging / digest.hex
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for chunk in chunks:
            os.write(descriptor, chunk)
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(staged, target)

    filesystem.FilesystemBlobs._store = store


@plant
def pull_in_place() -> None:
    def fetch(reference: Any, into: Path, *, blobs: Any, catalog: Any, progress: Any, **_: Any) -> Any:
        version = catalog.resolve(reference)
        manifest = fetching.manifest_of(version.digest, blobs)
        into.mkdir(parents=True, exist_ok=True)
        for entry in manifest.files:
            fetching._write(entry, into, blobs, progress)
        return version, manifest

    reading.fetch = fetch


@plant
def journal_after_commit() -> None:
    waiting: list[tuple[Any, int, bytes]] = []
    write, writing = journal.FileJournal.write, SqlCatalog.writing
    journal.FileJournal.write = lambda self, first, segment: waiting.append((self, first, segment))

    @contextmanager
    def late(self: SqlCatalog) -> Iterator[Any]:
        with writing(self) as open_writer:
            yield open_writer
        while waiting:
            write(*waiting.pop())

    SqlCatalog.writing = late


@plant
def change_not_logged() -> None:
    def move(self: Any, adapter: Any, alias: Any, to: int | None, **_: Any) -> AliasMove:
        row = self._session.get(AliasRow, (adapter.key, alias.key))
        row.number = to
        return AliasMove(str(alias), None, to, "", "")

    writer.SqlWriter.move_alias = move


@plant
def alias_not_compared() -> None:
    move = writer.SqlWriter.move_alias
    writer.SqlWriter.move_alias = lambda self, adapter, alias, to, **_: move(self, adapter, alias, to)


@plant
def collected_without_asking() -> None:
    """What was unreferenced a moment ago is taken."""

    def unreferenced(self: Any, digests: Sequence[Digest]) -> list[Digest]:
        return list(digests)

    writer.SqlWriter.unreferenced = unreferenced


@plant
def shards_not_synced() -> None:
    import registry.transforms.streaming as streaming

    streaming.sync = lambda path: None


@plant
def places_not_synced() -> None:
    workplaces.sync = lambda path: None


@plant
def merge_in_place() -> None:
    workplaces.beside = lambda into, what: into


@plant
def half_files_believed() -> None:
    """Files have their final name from the start, so that a resume takes an unfinished one for finished."""
    import registry.transforms.streaming as streaming

    streaming.PARTIAL = ""


class _Sloppy:
    """``os`` with another ``fsync``."""

    def __init__(self, fsync: Callable[[int], None]) -> None:
        self.fsync = fsync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
