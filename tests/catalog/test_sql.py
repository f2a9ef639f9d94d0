"""The catalog in SQLite, in memory and in a file, and what only a file can do wrong."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from registry.catalog import reads, sql
from registry.catalog.engine import wal_is_safe
from registry.catalog.journal import FileJournal, MemoryJournal
from registry.catalog.sql import SqlCatalog
from registry.domain.names import AdapterName
from registry.domain.query import VersionQuery
from registry.errors import CorruptionError, UnavailableError
from tests.catalog.conftest import NAME, clock, manifest, migrated_file
from tests.catalog.contract import CatalogContract, add
from tests.catalog.contract_names import NamesContract


class TestInMemory(CatalogContract, NamesContract):
    @pytest.fixture
    def catalog(self, memory: SqlCatalog) -> SqlCatalog:
        return memory


class TestInAFile(CatalogContract, NamesContract):
    @pytest.fixture
    def catalog(self, tmp_path: Path) -> SqlCatalog:
        path = migrated_file(tmp_path / "catalog.db")
        return SqlCatalog(path, FileJournal(tmp_path / "journal"), actor="tester", now=clock())


def at(root: Path) -> SqlCatalog:
    return SqlCatalog(root / "catalog.db", FileJournal(root / "journal"))


def test_reading_makes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    assert at(root).search(VersionQuery()) == []
    assert at(root).verify(lambda _digest: None) == []
    assert at(root).sweep(dry_run=False) == []
    assert not root.exists()


def test_a_transaction_that_changes_nothing_leaves_no_segment(tmp_path: Path) -> None:
    with at(tmp_path).writing():
        pass
    assert not (tmp_path / "journal").exists()


def test_joined_transactions_are_one(tmp_path: Path) -> None:
    """Nobody sees anything of them before the end, by which it is known what the audit will have."""
    catalog = at(tmp_path)
    add(catalog, 0)
    with catalog.joined() as joined:
        assert joined.last_entry is None
        for salt in (1, 2):
            add(joined, salt)
        entry = joined.last_entry
        assert entry is not None
        assert entry[0] == 3
        assert [version.number for version in at(tmp_path).versions(NAME, limit=9)] == [1]
    assert [version.number for version in at(tmp_path).versions(NAME, limit=9)] == [3, 2, 1]
    assert at(tmp_path).holds(entry)
    assert not at(tmp_path).holds((3, "sha256:" + "0" * 64))
    assert not at(tmp_path).holds((4, entry[1]))


@pytest.mark.parametrize("where", ["in a transaction", "after them"])
def test_joined_transactions_are_taken_back_together(tmp_path: Path, where: str) -> None:
    catalog = at(tmp_path)
    add(catalog, 0)
    with pytest.raises(RuntimeError), catalog.joined() as joined:
        add(joined, 1)
        entry = joined.last_entry
        if where == "after them":
            raise RuntimeError
        with joined.writing() as writer:
            writer.add_version(NAME, manifest(2))
            raise RuntimeError
    assert entry is not None
    assert not at(tmp_path).holds(entry)
    assert list(FileJournal(tmp_path / "journal").firsts()) == [1]
    add(catalog, 3)
    assert [version.number for version in at(tmp_path).versions(NAME, limit=9)] == [2, 1]


def test_another_process_sees_what_was_committed(tmp_path: Path) -> None:
    writer, reader = at(tmp_path), at(tmp_path)
    assert reader.search(VersionQuery()) == []
    add(writer, 0)
    assert len(reader.search(VersionQuery())) == 1
    with writer.writing() as open_transaction:
        open_transaction.add_version(NAME, manifest(1))
        assert len(reader.search(VersionQuery(all_versions=True))) == 1
    assert len(reader.search(VersionQuery(all_versions=True))) == 2


def test_first_writers_that_race_all_win(tmp_path: Path) -> None:
    """Nobody has made the database yet, and everybody wants to. Each gets a number of its own."""
    together = Barrier(4)

    def first(salt: int) -> int:
        catalog = at(tmp_path / "registry")
        together.wait()
        (version,) = add(catalog, salt)
        return version.number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(first, range(4)))
    assert sorted(numbers) == [1, 2, 3, 4]
    assert at(tmp_path / "registry").verify({manifest(salt).digest: manifest(salt) for salt in range(4)}.get) == []


def test_a_writer_waits_for_another_and_says_so_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(at(tmp_path), 0)
    from registry.catalog import engine

    make = engine.sqlite_engine
    monkeypatch.setattr(sql, "sqlite_engine", lambda path: make(path, patience=0.1))
    impatient = at(tmp_path)
    blocker = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="busy"):
        add(impatient, 1)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert len(impatient.audit()) == 1
    add(impatient, 1)


@pytest.mark.parametrize("damage", [b"not a database, but long enough to have a header of a hundred bytes or so" * 40])
def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(damage)
    for attempt in (lambda: at(tmp_path).search(VersionQuery()), lambda: add(at(tmp_path), 0)):
        with pytest.raises(CorruptionError) as caught:
            attempt()
        assert "rebuild" in (caught.value.hint or "")
    assert path.read_bytes() == damage


def test_an_empty_file_is_a_first_writer_at_work(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").touch()
    assert at(tmp_path).search(VersionQuery()) == []
    add(at(tmp_path), 0)


def test_more_versions_than_a_page_are_all_walked(memory: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "_PAGE", 3)
    for salt in range(5):
        add(memory, salt, salt + 10, name=AdapterName.parse(f"a{salt}"))
    assert len({version.reference for version in memory.live_versions()}) == 10


def test_the_beginning_of_two_digests_is_ambiguous(memory: SqlCatalog) -> None:
    from registry.domain.names import Reference
    from registry.errors import NotFoundError

    add(memory, 0, 1)
    with memory._engine.begin() as connection:
        for number in (1, 2):
            digest = "sha256:" + "a" * 12 + str(number) * 52
            connection.exec_driver_sql(f"UPDATE version SET digest = '{digest}' WHERE number = {number}")
    with pytest.raises(NotFoundError) as caught:
        memory.resolve(Reference.parse("sha256:" + "a" * 12))
    assert caught.value.code == "ambiguous-digest"
    assert memory.resolve(Reference.parse("sha256:" + "a" * 12 + "2")).number == 2


def test_a_catalog_in_memory_is_not_rebuilt() -> None:
    with pytest.raises(UnavailableError):
        SqlCatalog(None, MemoryJournal()).rebuild(lambda _digest: None)


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False),
        ((3, 50, 7), True), ((3, 51, 0), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), True),
    ],
)  # fmt: skip
def test_wal_is_used_on_repaired_libraries_only(version: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_every_commit_changes_the_generation_and_reading_does_not(tmp_path: Path) -> None:
    """Seen by another connection, as another process would."""
    ours, theirs = at(tmp_path), at(tmp_path)
    stamps = [theirs.generation()]
    for salt in range(5):
        add(ours, salt)
        stamps.append(theirs.generation())
        assert theirs.search(VersionQuery())
        assert theirs.generation() == stamps[-1]
    assert len(set(stamps)) == len(stamps)


def test_a_transaction_that_is_taken_back_leaves_the_generation(tmp_path: Path) -> None:
    catalog = at(tmp_path)
    add(catalog, 0)
    before = catalog.generation()
    with pytest.raises(RuntimeError), catalog.writing() as writer:
        writer.add_version(NAME, manifest(1))
        raise RuntimeError
    assert catalog.generation() == before


def test_a_catalog_that_is_being_made_is_not_lost(tmp_path: Path) -> None:
    """The first writer makes the file and the first segment between a reader's look for the one and its look for the other."""
    root = tmp_path / "registry"

    class Slow(FileJournal):
        def firsts(self):  # type: ignore[no-untyped-def]
            if not (root / "catalog.db").exists():
                add(at(root), 0)
            return super().firsts()

    reader = SqlCatalog(root / "catalog.db", Slow(root / "journal"))
    assert len(reader.search(VersionQuery())) == 1
