"""Versions described elsewhere: they are read again before the transaction, which others are not kept waiting for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import registry.api.receiving as receiving
from registry.connect import Registry, connect
from registry.domain.digest import Digest
from tests.api import test_forged as forged
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found


def others_write(here: Site) -> bool:
    database = sqlite3.connect(here.place / "catalog.db", timeout=0, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
        return True
    except sqlite3.OperationalError:
        return False
    finally:
        database.close()


def as_bob(here: Site) -> Registry:
    return connect(here.address, token=here.tokens["bob"])


@pytest.mark.parametrize("slow", ["laid_out", "describe", "against_base"])
def test_others_write_while_an_adapter_is_read(
    here: Site, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """All that reads the adapter's bytes, for the trial as for the commit."""
    real, seen = getattr(receiving, slow), []

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(others_write(here))
        return real(*arguments, **options)

    monkeypatch.setattr(receiving, slow, watched)
    pushed = as_bob(here).push(write_adapter("new", lora_tensors(value=0.125)), name="b/new", alias="production")
    assert pushed.version.number == 1
    assert seen and all(seen)


def test_others_write_while_a_merged_checkpoint_is_read(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = receiving.require_merged, []

    def watched(*arguments: Any) -> None:
        seen.append(others_write(here))
        real(*arguments)

    monkeypatch.setattr(receiving, "require_merged", watched)
    assert forged.send(here, forged.CHECKPOINT, forged.stated(forged.CHECKPOINT)).status == 200
    assert seen == [True]


@pytest.mark.parametrize("which", ["manifest", "file"])
def test_what_a_collector_took_meanwhile_makes_no_version(here: Site, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    manifest = forged.stated(forged.CHECKPOINT)
    real = receiving.require_merged

    def collected(*arguments: Any) -> None:
        real(*arguments)
        here.shelf.blobs.delete(manifest.digest if which == "manifest" else manifest.files[-1].digest)

    monkeypatch.setattr(receiving, "require_merged", collected)
    answer = forged.send(here, forged.CHECKPOINT, manifest)
    assert answer.code == "missing-blob"
    assert here.ask("GET", "/v1/adapters/b/merged", "root").status == 404


def test_one_version_that_is_refused_leaves_no_step_done(here: Site) -> None:
    """Though the others came before it."""
    manifest = forged.stated({**forged.CHECKPOINT, "pytorch_model.bin": forged.PICKLE})
    for data in (*forged.CHECKPOINT.values(), forged.PICKLE, manifest.canonical_bytes):
        here.ask("PUT", f"/v1/blobs/{Digest.of(data)}", "bob", data)
    facts = {"note": None, "fingerprint": None, "weights_fingerprint": None, "findings": []}
    steps = [
        {"do": "set_tags", "version": "b/open@1", "tags": {"k": "changed"}},
        {"do": "add_version", "adapter": "b/merged", "manifest": manifest.canonical_bytes.decode(), **facts},
    ]
    answer = here.ask("POST", "/v1/transactions", "bob", {"steps": steps, "commit": True})
    assert (answer.status, answer.code) == (400, "manifest-differs")
    assert here.shelf.show("b/open@1").version.tags == {"k": "v"}
