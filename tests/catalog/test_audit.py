"""The audit: one entry a change, chained, and no edit goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from registry.catalog.engine import sqlite_engine, writing
from registry.connect import Registry, connect
from registry.errors import CorruptionError
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def lived(store: Registry, write_adapter: WriteAdapter) -> Registry:
    """A registry with a history of eight changes."""
    store.push(write_adapter("a"), alias="production", tags={"k": "v"}, evaluations=["acc=0.5"])
    store.push(write_adapter("b", lora_tensors(value=0.25)), name="a")
    store.set_alias("a", "production", 2, expected=1)
    store.yank("a@1", "old")
    store.unyank("a@1")
    return store


def test_every_change_is_one_entry(lived: Registry) -> None:
    actions = [entry.action for entry in reversed(lived.log())]
    assert actions == ["publish", "tag", "evaluate", "alias", "publish", "alias", "yank", "unyank"]
    assert [entry.sequence for entry in lived.log()] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert {entry.actor for entry in lived.log()} == {"tester"}


def test_what_changes_nothing_is_no_entry(lived: Registry, tmp_path: Path) -> None:
    lived.set_alias("a", "production", 2)
    lived.set_tags("a@1", {"k": "v"})
    lived.unyank("a@1")
    lived.push(tmp_path / "b", name="a")
    assert len(lived.log()) == 8


def test_history_is_kept_when_an_alias_goes(lived: Registry) -> None:
    lived.remove_alias("a", "production")
    moves = [(move.before, move.after) for move in lived.alias_history("a", "production")]
    assert moves == [(None, 1), (1, 2), (2, None)]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE audit SET body = replace(body, '\"old\"', '\"new\"') WHERE action = 'yank'",
        "UPDATE audit SET hash = 'sha256:0' WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 4",
        "DELETE FROM audit WHERE sequence = 8",
        "UPDATE version SET digest = 'sha256:0' WHERE number = 1",
        "UPDATE version SET yanked = 'quietly' WHERE number = 2",
        "UPDATE alias SET number = 1",
        "UPDATE evaluation SET value = 0.99",
        "DELETE FROM tag",
        "UPDATE adapter SET next_number = 1",
    ],
)
def test_an_edit_is_seen(lived: Registry, tmp_path: Path, edit: str) -> None:
    assert lived.doctor().problems == ()
    with writing(sqlite_engine(tmp_path / "registry" / "catalog.db")) as connection:
        assert connection.execute(text(edit)).rowcount > 0
    assert connect(tmp_path / "registry").doctor().problems != ()


def test_an_edited_journal_is_seen_and_not_replayed(lived: Registry, tmp_path: Path) -> None:
    segment = sorted((tmp_path / "registry" / "journal").rglob("*.jsonl"))[-1]
    segment.chmod(0o644)
    segment.write_text(segment.read_text().replace("tester", "nobody"))
    assert lived.doctor().problems != ()
    (tmp_path / "registry" / "catalog.db").rename(tmp_path / "gone")
    first = sorted((tmp_path / "registry" / "journal").rglob("*.jsonl"))[0]
    first.chmod(0o644)
    first.write_text(first.read_text().replace("tester", "nobody"))
    with pytest.raises(CorruptionError):
        lived.rebuild()


def test_a_lost_catalog_is_not_an_empty_one(lived: Registry, tmp_path: Path) -> None:
    (tmp_path / "registry" / "catalog.db").unlink()
    fresh = connect(tmp_path / "registry")
    for attempt in (fresh.list, lambda: fresh.push(tmp_path / "a"), lambda: fresh.gc(grace=0)):
        with pytest.raises(CorruptionError) as caught:
            attempt()
        assert caught.value.code == "catalog-lost"
    fresh.rebuild()
    assert len(fresh.list(all_versions=True)) == 2


def test_an_old_catalog_in_the_place_of_a_newer_is_refused(
    lived: Registry, tmp_path: Path, write_adapter: WriteAdapter
) -> None:
    path = tmp_path / "registry" / "catalog.db"
    old = path.read_bytes()
    lived.yank("a@1", "one")
    lived.unyank("a@1")
    path.write_bytes(old)
    fresh = connect(tmp_path / "registry")
    with pytest.raises(CorruptionError) as caught:
        fresh.push(write_adapter("c", lora_tensors(value=0.75)))
    assert caught.value.code == "catalog-rolled-back"
    fresh.rebuild()
    assert fresh.doctor(deep=True).problems == ()
