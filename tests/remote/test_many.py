"""Many adapters pushed at once: no transaction of theirs is one that a server refuses for its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.api import receiving
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
        there = list(connect(address).push_many(many))
    assert [published(each) for each in there] == [published(each) for each in here.push_many(many, batch=100)]
    transactions = [len(list((root / "journal").rglob("*.jsonl"))) for root in (store, tmp_path / "here")]
    assert transactions == [COUNT, 2]  # a server does all of one again with each step of it
    told = [[(entry.action, entry.adapter, entry.body) for entry in shelf.log()] for shelf in (connect(store), here)]
    assert told[0] == told[1]
    assert len(told[0]) == COUNT


def published(pushed: object) -> tuple[str, str]:
    assert isinstance(pushed, Published)
    return pushed.version.reference, pushed.version.digest



def test_a_version_is_read_once_however_many_steps_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    describe = receiving.describe

    def counted(directory: Path, **options: Any) -> Any:
        read.append(str(directory))
        return describe(directory, **options)

    monkeypatch.setattr(receiving, "describe", counted)
    store = tmp_path / "there"
    with connect(store).catalog.writing():
        pass
    one = write(tmp_path / "x", lora_tensors())
    with served(Settings(store)) as address:
        pushed = connect(address).push(one, alias=["a", "b"], tags={"k": "w"}, evaluations=["acc=0.5"])
    assert len(read) == 1
    assert pushed.version.tags == {"k": "w"}
