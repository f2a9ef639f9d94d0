"""Many adapters pushed at once: no transaction of theirs is one that a server refuses for its size."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.api.settings import Settings
from registry.connect import connect
from registry.operations.publish import Published
from tests.api.served import served
from tests.conftest import lora_tensors
from tests.operations.adapters import write

COUNT = 130


@pytest.mark.slow
def test_many_adapters_are_there_what_they_are_here(tmp_path: Path) -> None:
    """By the oracle of the embedded registry, where a transaction takes anything."""
    many = [write(tmp_path / "many" / f"x{count}", lora_tensors(value=count + 1.0)) for count in range(COUNT)]
    here, store = connect(tmp_path / "here"), tmp_path / "there"
    with connect(store).catalog.writing():
        pass
    with served(Settings(store)) as address:
        there = list(connect(address).push_many(many, batch=4))
    assert [published(each) for each in there] == [published(each) for each in here.push_many(many, batch=4)]
    told = [[(entry.action, entry.adapter, entry.body) for entry in shelf.log()] for shelf in (connect(store), here)]
    assert told[0] == told[1]
    assert len(told[0]) == COUNT


def test_a_transaction_is_filled_by_what_goes_with_its_versions(tmp_path: Path) -> None:
    shelf = connect(tmp_path / "here")
    many = [write(tmp_path / "many" / f"x{count}", lora_tensors(value=count + 1.0)) for count in range(40)]
    records = [{"directory": each, "alias": [f"alias-{number}" for number in range(13)]} for each in many]
    assert all(isinstance(each, Published) for each in shelf.push_many(records))
    segments = [path.read_text().splitlines() for path in (tmp_path / "here" / "journal").rglob("*.jsonl")]
    assert sum(map(len, segments)) == 40 * 14
    assert max(map(len, segments)) < 200


def published(pushed: object) -> tuple[str, str]:
    assert isinstance(pushed, Published)
    return pushed.version.reference, pushed.version.digest

