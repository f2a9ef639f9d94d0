"""A catalog made again from the journal and the manifests is the one that was lost, table by table."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from registry.catalog.journal import FileJournal
from registry.catalog.sql import SqlCatalog
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.base_model import BaseModelId, StoredBase
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery
from registry.domain.summary import Summary
from registry.errors import CorruptionError
from tests.catalog.conftest import NAME, clock, manifest, migrated_file

OTHER = AdapterName.parse("Team/Other")
CHILD = manifest(2, parents=[manifest(0).digest])


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}
    connection.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A catalog with something of everything; version 2 of the adapter is a tombstone."""
    path = migrated_file(tmp_path / "catalog.db")
    catalog = SqlCatalog(path, FileJournal(tmp_path / "journal"), actor="tester", now=clock())
    with catalog.writing() as writer:
        finding = Finding("no-op", Severity.WARNING, "changes nothing")
        first, _ = writer.add_version(NAME, manifest(0), note="first", findings=[finding])
        writer.set_tags(first, {"a": "1", "b": "2"})
        writer.move_alias(NAME, AliasName("Production"), 1)
    with catalog.writing() as writer:
        writer.add_version(NAME, manifest(1, rank=None, task_type=None, base=None))
        writer.add_version(OTHER, manifest(0, targets=("v_proj", "q_proj")))
    with catalog.writing() as writer:
        first = writer.resolve(Reference(NAME, number=1))
        writer.add_evaluations(first, [Evaluation("acc", 0.5, "arc"), Evaluation("acc", 0.75)], raw=Digest.of(b"raw"))
        writer.add_evaluations(first, [Evaluation("acc", 0.25, "arc", stderr=0.1, n=7, higher_is_better=True)])
        writer.remove_tags(writer.resolve(Reference(NAME, number=1)), ["a"])
        writer.yank(writer.resolve(Reference(OTHER)), "broken")
        writer.delete(writer.resolve(Reference(NAME, number=2)), "secret")
        writer.note_collection([manifest(1).digest])
    with catalog.writing() as writer:
        writer.add_version(NAME, CHILD)
        writer.move_alias(NAME, AliasName("production"), 3, expected=1)
        writer.move_alias(NAME, AliasName("staging"), 3)
        writer.move_alias(NAME, AliasName("staging"), None)
    with catalog.writing() as writer:
        writer.add_base(StoredBase(BaseModelId("Org/Base", "main"), Digest.of(b"spec")))
        writer.alias_base("org/mirror", "Org/Base")
    moved, hidden = AdapterName.parse("team/moved"), AdapterName.parse("Team/Hidden")
    with catalog.writing() as writer:
        writer.create_adapter(hidden, private=True)
        writer.add_commit(
            hidden,
            commit="a" * 40,
            parent=None,
            tree=Digest.of(b"tree"),
            files=[Digest.of(b"card")],
            title="a card",
            number=0,
            draft=False,
        )
        writer.rename_adapter(hidden, moved)
        writer.set_private(moved, private=False)
        writer.create_adapter(AdapterName.parse("team/gone"), private=False)
        writer.remove_adapter(AdapterName.parse("team/gone"), "by mistake")
        _, kept = new_token("ci", [Action.READ, Action.PUSH], [NamespacePattern("team/*")], expires_at=None)
        writer.add_token(kept)
        writer.revoke_token(kept.id)
    return path


KEPT: dict[str, Manifest] = {
    each.digest: each for each in (manifest(0), manifest(0, targets=("v_proj", "q_proj")), CHILD)
}


def at(path: Path) -> SqlCatalog:
    return SqlCatalog(path, FileJournal(path.parent / "journal"))


@pytest.mark.parametrize("loss", ["nothing", "the file", "its content", "its end"])
def test_every_table_is_what_it_was(path: Path, loss: str) -> None:
    before = tables(path)
    assert min(len(rows) for name, rows in before.items()) > 0
    if loss == "the file":
        path.unlink()
    elif loss == "its content":
        path.write_bytes(b"rubbish" * 1000)
    elif loss == "its end":
        path.write_bytes(path.read_bytes()[:5000])
    assert at(path).rebuild(KEPT.get) == len(before["audit"])
    assert tables(path) == before
    assert at(path).verify(KEPT.get) == []


def test_what_was_there_is_kept_beside_it(path: Path) -> None:
    before = path.read_bytes()
    at(path).rebuild(KEPT.get)
    assert path.with_name("catalog.db.before").read_bytes() == before
    there = ["catalog.db", "catalog.db.before", "catalog.db.reserve", "journal"]
    assert sorted(each.name for each in path.parent.iterdir()) == there


def test_numbers_go_on_behind_tombstones(path: Path) -> None:
    path.unlink()
    at(path).rebuild(KEPT.get)
    with at(path).writing() as writer:
        assert writer.add_version(NAME, manifest(1))[0].number == 4


def test_without_its_manifest_a_version_keeps_number_and_digest(path: Path) -> None:
    at(path).rebuild(lambda _digest: None)
    version = at(path).resolve(Reference(NAME, number=1))
    assert (version.digest, version.summary) == (manifest(0).digest, Summary())
    assert {each.reference for each in at(path).search(VersionQuery(all_versions=True))} == {
        "team/adapter@1", "team/adapter@3", "Team/Other@1"
    }  # fmt: skip


def test_an_edited_journal_is_not_replayed(path: Path) -> None:
    before = path.read_bytes()
    segment = min((path.parent / "journal").rglob("*.jsonl"))
    segment.chmod(0o644)
    segment.write_text(segment.read_text().replace("tester", "nobody"))
    with pytest.raises(CorruptionError, match="cannot be replayed"):
        at(path).rebuild(KEPT.get)
    assert path.read_bytes() == before
    assert not path.with_name("catalog.db.before").exists()


@pytest.mark.parametrize("lost", ["the end", "all of it"])
def test_a_journal_that_ends_before_the_catalog_is_not_replayed(path: Path, lost: str) -> None:
    """Rather the history that is there than the one that is not."""
    before = path.read_bytes()
    segments = sorted((path.parent / "journal").rglob("*.jsonl"))
    for segment in segments if lost == "all of it" else segments[-1:]:
        segment.unlink()
    with pytest.raises(CorruptionError, match="the journal ends with entry"):
        at(path).rebuild(KEPT.get)
    assert path.read_bytes() == before
    assert not path.with_name("catalog.db.before").exists()


def test_what_an_interrupted_rebuild_left_is_no_obstacle(path: Path) -> None:
    before = tables(path)
    path.with_name("catalog.db.rebuilt").write_bytes(b"half" * 1000)
    path.with_name("catalog.db.rebuilt-journal").write_bytes(b"half" * 1000)

    def unplugged(_digest: Digest) -> None:
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        at(path).rebuild(unplugged)
    assert tables(path) == before
    at(path).rebuild(KEPT.get)
    assert tables(path) == before
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "catalog.db", "catalog.db.before", "catalog.db.reserve", "journal"
    ]  # fmt: skip
