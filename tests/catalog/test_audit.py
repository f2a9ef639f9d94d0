"""The audit: one entry a change, chained, and no edit goes unseen."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from registry.domain.digest import Digest
from registry.errors import CorruptionError
from tests.conftest import lora_tensors, safetensors_bytes
from tests.operations.adapters import write

ACTIONS = ["publish", "tag", "evaluate", "alias", "publish", "alias", "yank", "unyank"]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a history of eight changes, and the adapters it was made of."""
    root = tmp_path_factory.mktemp("life")
    registry = connect(root / "registry", actor="tester")
    registry.push(write(root / "a"), alias="production", tags={"k": "v"}, evaluations=["acc=0.5"])
    registry.push(write(root / "b", lora_tensors(value=0.25)), name="a")
    registry.set_alias("a", "production", 2, expected=1)
    registry.yank("a@1", "old")
    registry.unyank("a@1")
    assert registry.doctor(deep=True).problems == ()
    return root


@pytest.fixture
def lived(life: Path, tmp_path: Path) -> Registry:
    shutil.copytree(life, tmp_path, dirs_exist_ok=True)
    return connect(tmp_path / "registry", actor="tester")


def problems(root: Path) -> list[str]:
    return [problem.message for problem in connect(root / "registry").doctor().problems]


def rewrite(segment: Path, before: str, after: str) -> None:
    text = segment.read_text()
    assert before in text
    segment.chmod(0o644)
    segment.write_text(text.replace(before, after))
    segment.chmod(0o444)


def test_every_change_is_one_entry(lived: Registry) -> None:
    assert [entry.action for entry in reversed(lived.log())] == ACTIONS
    assert [entry.sequence for entry in lived.log()] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert {entry.actor for entry in lived.log()} == {"tester"}
    assert [entry.at for entry in lived.log()] == sorted((entry.at for entry in lived.log()), reverse=True)


def test_what_changes_nothing_is_no_entry(lived: Registry, tmp_path: Path) -> None:
    lived.set_alias("a", "production", 2)
    lived.set_tags("a@1", {"k": "v"})
    lived.unyank("a@1")
    lived.push(tmp_path / "b", name="a")
    lived.gc(grace=0)
    assert len(lived.log()) == len(ACTIONS)


def test_history_is_kept_when_an_alias_goes(lived: Registry) -> None:
    lived.remove_alias("a", "production")
    moves = [(move.before, move.after) for move in lived.alias_history("a", "production")]
    assert moves == [(None, 1), (1, 2), (2, None)]


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ("UPDATE audit SET body = replace(body, '\"old\"', '\"new\"') WHERE action = 'yank'", "audit entry 7 was edited"),
        ("UPDATE audit SET body = replace(body, ',', ', ') WHERE sequence = 2", "entry 2 is not in canonical form"),
        ("UPDATE audit SET body = 'x' WHERE sequence = 2", "audit entry cannot be read"),
        ("UPDATE audit SET hash = 'sha256:0' WHERE sequence = 3", "audit entry 3 was edited"),
        ("DELETE FROM audit WHERE sequence = 1", "audit entry 1 is missing"),
        ("DELETE FROM audit WHERE sequence = 4", "audit entry 4 is missing"),
        ("DELETE FROM audit WHERE sequence = 8", "table version"),
        ("UPDATE audit SET sequence = CASE sequence WHEN 5 THEN -6 ELSE -5 END WHERE sequence IN (5, 6)", "audit entry"),
        ("UPDATE version SET digest = 'sha256:0' WHERE number = 1", "digest"),
        (f"UPDATE version SET digest = 'sha256:{'0' * 64}' WHERE number = 1", "table version"),
        ("UPDATE version SET yanked = 'quietly' WHERE number = 2", "table version"),
        ("UPDATE version SET newest = 1 - newest", "table version"),
        ("UPDATE version SET rank = 64 WHERE number = 2", "table version"),
        ("UPDATE version SET number = 7 WHERE number = 1", "table version"),
        ("UPDATE alias SET number = 1", "table alias"),
        ("DELETE FROM alias", "table alias"),
        ("UPDATE evaluation SET value = 0.99", "table evaluation"),
        ("UPDATE evaluation SET latest = 0", "table evaluation"),
        ("INSERT INTO evaluation SELECT 9, version_id, suite, task, metric, filter, split, 1.0, stderr, n, "
         "higher_is_better, source, at, 0, 0 FROM evaluation", "table evaluation"),
        ("DELETE FROM tag", "table tag"),
        ("UPDATE tag SET value = 'w'", "table tag"),
        ("DELETE FROM target", "table target"),
        ("DELETE FROM blob WHERE version_id = 1", "table blob"),
        ("UPDATE adapter SET next_number = 1", "table adapter"),
    ],
)  # fmt: skip
def test_an_edit_is_seen_and_named(lived: Registry, tmp_path: Path, edit: str, named: str) -> None:
    with sqlite3.connect(tmp_path / "registry" / "catalog.db") as connection:
        assert connection.execute(edit).rowcount > 0
        if "sequence IN" in edit:
            connection.execute("UPDATE audit SET sequence = -sequence WHERE sequence < 0")
    connection.close()
    found = problems(tmp_path)
    assert any(named in message for message in found), found


def test_an_edited_journal_is_seen(lived: Registry, tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    rewrite(max((tmp_path / "registry" / "journal").rglob("*.jsonl")), "tester", "nobody")
    assert problems(tmp_path) == ["journal segment 8 does not agree with the audit"]


def test_a_lost_catalog_is_not_an_empty_one(lived: Registry, tmp_path: Path) -> None:
    before = lived.show("a@1").document()
    (tmp_path / "registry" / "catalog.db").unlink()
    fresh = connect(tmp_path / "registry")
    for attempt in (
        fresh.list,
        fresh.log,
        lambda: fresh.show("a"),
        lambda: fresh.pull("a", tmp_path / "out"),
        lambda: fresh.push(tmp_path / "a"),
        lambda: fresh.set_alias("a", "production", 1),
        lambda: fresh.gc(grace=0),
    ):
        with pytest.raises(CorruptionError) as caught:
            attempt()
        assert caught.value.code == "catalog-lost"
    assert not (tmp_path / "registry" / "catalog.db").exists()
    assert not (tmp_path / "out").exists()
    assert fresh.rebuild() == len(ACTIONS)
    assert connect(tmp_path / "registry").show("a@1").document() == before
    assert problems(tmp_path) == []


@pytest.mark.parametrize("events", [1, 2, 3])
@pytest.mark.parametrize("then", ["push", "yank", "gc"])
def test_an_old_catalog_catches_up_with_its_journal(lived: Registry, tmp_path: Path, events: int, then: str) -> None:
    """However old the backup is: what was acknowledged since comes back with the next write, and no number is used twice."""
    path = tmp_path / "registry" / "catalog.db"
    old = path.read_bytes()
    weights = tmp_path / "a" / "adapter_model.safetensors"
    for value in range(events):
        weights.write_bytes(safetensors_bytes(lora_tensors(value=0.5 + value)))
        lived.push(tmp_path / "a", name="new")
    path.write_bytes(old)
    fresh = connect(tmp_path / "registry")
    if then == "push":
        weights.write_bytes(safetensors_bytes(lora_tensors(value=99.0)))
        assert fresh.push(tmp_path / "a", name="new").version.number == events + 1
    elif then == "yank":
        fresh.yank("a@2", "x")
    else:
        lived.blobs.put(Digest.of(b"orphan"), (b"orphan",))
        assert fresh.gc(grace=0).blobs == (Digest.of(b"orphan"),)
    for number in range(1, events + 1):
        fresh.pull(f"new@{number}", tmp_path / f"back-{number}")
    assert fresh.doctor(deep=True).problems == ()


def test_a_catalog_of_another_history_is_refused(lived: Registry, tmp_path: Path) -> None:
    path = tmp_path / "registry" / "catalog.db"
    other = connect(tmp_path / "other", actor="other")
    other.push(tmp_path / "a")
    path.write_bytes((tmp_path / "other" / "catalog.db").read_bytes())
    fresh = connect(tmp_path / "registry")
    with pytest.raises(CorruptionError) as caught:
        fresh.yank("a@1", "x")
    assert caught.value.code == "catalog-rolled-back"
    fresh.rebuild()
    assert fresh.doctor(deep=True).problems == ()


