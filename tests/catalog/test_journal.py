"""The journal: ahead by one unacknowledged segment at most; by more only behind an old catalog."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from registry.catalog.journal import FileJournal, Journal, MemoryJournal
from registry.catalog.sql import SqlCatalog
from registry.domain.names import Reference
from registry.errors import CorruptionError, UnavailableError
from tests.catalog.conftest import NAME, manifest, migrated_file
from tests.catalog.contract import add


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return FileJournal(tmp_path / "journal") if request.param == "file" else MemoryJournal()


def test_segments_are_read_as_written_in_the_order_of_their_numbers(journal: Journal) -> None:
    for first in (1, 2000, 999, 1000, 1_234_567):
        journal.write(first, f"{first}\n".encode())
    assert list(journal.firsts()) == [1, 999, 1000, 2000, 1_234_567]
    assert journal.read(999) == b"999\n"
    assert journal.read(7) is None


def test_an_unacknowledged_segment_is_replaced(journal: Journal) -> None:
    journal.write(1, b"one\n")
    journal.write(1, b"other\n")
    assert (list(journal.firsts()), journal.read(1)) == ([1], b"other\n")


def test_one_that_was_never_written_is_empty(journal: Journal) -> None:
    assert list(journal.firsts()) == journal.leftovers() == journal.sweep() == []


def test_a_segment_is_a_read_only_file(tmp_path: Path) -> None:
    FileJournal(tmp_path / "journal").write(1001, b"x\n")
    (path,) = (path for path in (tmp_path / "journal").rglob("*") if path.is_file())
    assert path.relative_to(tmp_path / "journal").as_posix() == "000001/000001001.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_what_a_killed_writer_left_is_named_and_swept(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    journal.write(1, b"x\n")
    (tmp_path / "journal" / "000000" / "000000002.abcd.tmp").write_bytes(b"y")
    assert list(journal.firsts()) == [1]
    assert journal.leftovers() == journal.sweep() == ["000000002.abcd.tmp"]
    assert journal.leftovers() == []


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data[:3])))
    FileJournal(tmp_path / "journal").write(1, b"0123456789\n")
    assert FileJournal(tmp_path / "journal").read(1) == b"0123456789\n"


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_without_its_segment_a_change_does_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    catalog = at(tmp_path)
    add(catalog, 0)
    before = sorted((tmp_path / "journal").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(UnavailableError) as caught:
            add(catalog, 1)
    assert caught.value.code == "no-space"
    assert sorted((tmp_path / "journal").rglob("*")) == before
    assert len(catalog.audit()) == 1
    add(catalog, 1)


def at(root: Path) -> SqlCatalog:
    path = root / "catalog.db"
    return SqlCatalog(path if path.exists() else migrated_file(path), FileJournal(root / "journal"))


def roll_back(root: Path, entries: int) -> None:
    """Put back the catalog as it was before the last entries."""
    path = root / "catalog.db"
    for salt in range(3 - entries):
        add(at(root), salt)
    old = path.read_bytes()
    for salt in range(3 - entries, 3):
        add(at(root), salt)
    path.write_bytes(old)


def test_ahead_by_one_is_a_writer_that_was_killed(tmp_path: Path) -> None:
    """It never answered, so its segment is replaced by whoever comes next."""
    roll_back(tmp_path, 1)
    kept = {manifest(salt).digest: manifest(salt) for salt in (0, 1, 7)}
    assert at(tmp_path).verify(kept.get) == []
    add(at(tmp_path), 7)
    assert at(tmp_path).resolve(Reference(NAME, number=3)).digest == manifest(7).digest
    assert list(FileJournal(tmp_path / "journal").firsts()) == [1, 2, 3]
    assert at(tmp_path).verify(kept.get) == []


def test_ahead_by_two_is_an_old_catalog(tmp_path: Path) -> None:
    roll_back(tmp_path, 2)
    before = (tmp_path / "catalog.db").read_bytes()
    with pytest.raises(CorruptionError) as caught:
        add(at(tmp_path), 7)
    assert caught.value.code == "catalog-rolled-back"
    (problem,) = at(tmp_path).verify(lambda _digest: manifest(0))
    assert "an old catalog was put in its place" in problem
    assert (tmp_path / "catalog.db").read_bytes() == before
    assert list(FileJournal(tmp_path / "journal").firsts()) == [1, 2, 3]


def test_an_old_catalog_is_made_new_by_a_rebuild(tmp_path: Path) -> None:
    roll_back(tmp_path, 2)
    kept = {manifest(salt).digest: manifest(salt) for salt in range(3)}
    assert at(tmp_path).rebuild(kept.get) == 3
    assert at(tmp_path).verify(kept.get) == []
    assert [version.number for version in add(at(tmp_path), 2, 7)] == [3, 4]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_segment_that_is_gone_is_missed(tmp_path: Path, position: int) -> None:
    for salt in range(3):
        add(at(tmp_path), salt)
    kept = {manifest(salt).digest: manifest(salt) for salt in range(3)}
    sorted((tmp_path / "journal").rglob("*.jsonl"))[position].unlink()
    (problem,) = at(tmp_path).verify(kept.get)
    assert problem == f"the journal lacks the segment that begins with entry {position + 1}"
    if position < 2:
        before = (tmp_path / "catalog.db").read_bytes()
        with pytest.raises(CorruptionError):
            at(tmp_path).rebuild(kept.get)
        assert (tmp_path / "catalog.db").read_bytes() == before
