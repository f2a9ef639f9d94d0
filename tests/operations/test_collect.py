"""Collection takes what no version reaches and nothing else, and only after the grace period."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.sql import SqlCatalog
from registry.connect import Registry, connect
from registry.domain.digest import Digest
from registry.errors import CorruptionError, NotFoundError
from tests.conftest import lora_tensors
from tests.operations.adapters import blob_path, tree, write


def place(root: Path, digest: Digest) -> Path:
    return root / "registry" / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def orphan(registry: Registry, data: bytes = b"nobody needs this") -> Digest:
    registry.blobs.put(Digest.of(data), (data,))
    return Digest.of(data)


def test_what_is_needed_is_never_taken(lived: Registry, tmp_path: Path) -> None:
    """Also not of yanked versions, nor the results files of evaluations."""
    lived.yank("b", "broken")
    before = tree(tmp_path / "registry" / "blobs")
    entries = len(lived.log())
    found = lived.gc(grace=0)
    assert (found.blobs, found.bytes) == ((), 0)
    assert tree(tmp_path / "registry" / "blobs") == before
    assert len(lived.log()) == entries


def test_only_what_the_last_version_needed_goes_with_it(lived: Registry, tmp_path: Path) -> None:
    weights = blob_path(lived, tmp_path / "registry", "a@1", "adapter_model.safetensors")
    results = Digest.of((tmp_path / "results.json").read_bytes())
    lived.delete("a@2", "because")
    found = lived.gc(grace=0)
    assert len(found.blobs) == 3  # its manifest, its config, its results
    assert results in found.blobs
    assert weights.exists()
    lived.remove_alias("a", "production")
    lived.delete("a@1", "because")
    lived.gc(grace=0)
    assert not weights.exists()
    assert lived.doctor(deep=True).problems == ()
    lived.pull("b", tmp_path / "out")


def test_a_dry_run_says_what_a_run_does_and_changes_nothing(lived: Registry, tmp_path: Path) -> None:
    lived.delete("b", "because")
    orphan(lived)
    (tmp_path / "registry" / "staging" / "dead").write_bytes(b"x")
    before = tree(tmp_path / "registry")
    planned = lived.gc(grace=0, dry_run=True)
    assert tree(tmp_path / "registry") == before
    done = lived.gc(grace=0)
    assert (sorted(done.blobs), done.bytes, done.leftovers) == (sorted(planned.blobs), planned.bytes, planned.leftovers)
    assert done.leftovers == ("dead",)
    assert len(done.blobs) == 3  # manifest and weights of b@1, whose config is a@1's too, and the orphan
    assert lived.gc(grace=0).blobs == ()


def test_the_young_are_left_alone(lived: Registry, tmp_path: Path) -> None:
    """A pusher may be about to need them."""
    young, old = orphan(lived, b"young"), orphan(lived, b"old")
    hour_ago = time.time() - 3600
    os.utime(place(tmp_path, old), (hour_ago, hour_ago))
    assert lived.gc(grace=7200).blobs == ()
    assert lived.gc(grace=1800).blobs == (old,)
    assert lived.gc().blobs == ()
    assert lived.gc(grace=0).blobs == (young,)


def test_a_clock_that_was_put_back_makes_nothing_old(lived: Registry, tmp_path: Path) -> None:
    digest = orphan(lived)
    tomorrow = time.time() + 86400
    os.utime(place(tmp_path, digest), (tomorrow, tomorrow))
    assert lived.gc(grace=1).blobs == ()


def test_what_was_taken_is_on_record_before_it_is_gone(lived: Registry) -> None:
    digest = orphan(lived)
    lived.gc(grace=0)
    (entry,) = lived.log(limit=1)
    assert (entry.action, entry.body) == ("collect", {"blobs": [digest]})
    assert lived.doctor(deep=True).problems == ()


def test_it_asks_again_inside_the_transaction(lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody pushes between the listing and the removal."""
    directory = write(tmp_path / "x", lora_tensors(value=0.75))
    lived.push(directory)
    lived.delete("x@1", "because")
    other = connect(tmp_path / "registry")
    writing = SqlCatalog.writing
    pushed: list[str] = []

    def late(self: SqlCatalog) -> Any:
        if self is lived.catalog and not pushed:
            pushed.append("begun")
            pushed.append(other.push(directory).version.reference)
        return writing(self)

    monkeypatch.setattr(SqlCatalog, "writing", late)
    assert lived.gc(grace=0).blobs == ()
    assert pushed == ["begun", "local/x@2"]
    assert lived.doctor(deep=True).problems == ()


def test_two_collectors_at_once_do_not_trip(lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = orphan(lived)
    other = connect(tmp_path / "registry")
    writing = SqlCatalog.writing
    taken: list[tuple[Digest, ...]] = []

    def late(self: SqlCatalog) -> Any:
        if self is lived.catalog and not taken:
            taken.append(other.gc(grace=0).blobs)
        return writing(self)

    monkeypatch.setattr(SqlCatalog, "writing", late)
    assert lived.gc(grace=0).blobs == ()
    assert taken == [(digest,)]


def test_without_its_catalog_nothing_is_taken(lived: Registry, tmp_path: Path) -> None:
    orphan(lived)
    (tmp_path / "registry" / "catalog.db").unlink()
    before = tree(tmp_path / "registry" / "blobs")
    with pytest.raises(CorruptionError):
        connect(tmp_path / "registry").gc(grace=0)
    assert tree(tmp_path / "registry" / "blobs") == before


def test_an_old_catalog_takes_nothing_that_newer_versions_need(lived: Registry, tmp_path: Path) -> None:
    """Put back from a backup, it does not know them until the collector's transaction has caught up with the journal."""
    old = (tmp_path / "registry" / "catalog.db").read_bytes()
    for value in (0.7, 0.8):
        lived.push(write(tmp_path / f"x{value}", lora_tensors(value=value)))
    (tmp_path / "registry" / "catalog.db").write_bytes(old)
    before = tree(tmp_path / "registry" / "blobs")
    lived.blobs.put(Digest.of(b"x"), (b"x",))
    assert connect(tmp_path / "registry").gc(grace=0).blobs == (Digest.of(b"x"),)
    assert before.items() <= tree(tmp_path / "registry" / "blobs").items()


def test_a_registry_that_is_not_there_has_nothing_to_take(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no registry at"):
        connect(tmp_path / "registry").gc(grace=0)
    assert not (tmp_path / "registry").exists()
