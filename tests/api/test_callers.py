"""Who is asking, where the catalog is looked at while others write to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.api.callers import Gatekeeper
from registry.api.serve import initialize
from registry.api.settings import Settings
from registry.catalog.sql import SqlCatalog
from registry.connect import connect, embedded
from registry.domain.access import Token
from tests.conftest import WriteAdapter

#: The counter of commits in the header of a SQLite database, see sqlite.org/fileformat2.html.
COUNTER = slice(24, 28)


def count(database: Path, more: int) -> None:
    """As a writer does that is about to commit, and as what puts the file back where it was killed there."""
    descriptor = os.open(database, os.O_RDWR)
    counter = int.from_bytes(os.pread(descriptor, 100, 0)[COUNTER]) + more
    os.pwrite(descriptor, counter.to_bytes(4), COUNTER.start)
    os.close(descriptor)


def test_the_first_token_closes_a_server_that_looked_during_a_commit_that_never_held(
    tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit has the counter that the killed one had written: whoever kept that takes it for nothing new."""
    store = tmp_path / "store"
    connect(store).push(write_adapter("x"))
    read = SqlCatalog.tokens

    def after_the_writer_was_killed(catalog: SqlCatalog) -> list[Token]:
        monkeypatch.setattr(SqlCatalog, "tokens", read)
        count(store / "catalog.db", -1)
        return read(catalog)

    gatekeeper = Gatekeeper(embedded(store), Settings(store))
    monkeypatch.setattr(SqlCatalog, "tokens", after_the_writer_was_killed)
    count(store / "catalog.db", 1)
    assert gatekeeper.is_open
    initialize(Settings(store), actor="operator")
    assert not gatekeeper.is_open
