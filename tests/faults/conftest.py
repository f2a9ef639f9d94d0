"""One shim, one fork server and one stage for all fault tests of a process; and a second server for merges, with torch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults import shim
from tests.faults.merges import Kitchen
from tests.faults.programs import small_pieces
from tests.faults.scenes import Stage, write_contents
from tests.faults.server import Server
from tests.faults.warm import share_compiled_statements

#: ``FAULTS=all``: every call instead of a sample.
EVERYTHING = os.environ.get("FAULTS") == "all"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    share_compiled_statements()
    place = tmp_path_factory.mktemp("shim")
    server = Server(shim.build(place), place / "log")
    yield server
    server.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Stage:
    root = tmp_path_factory.mktemp("stage")
    return Stage(root, server, write_contents(root))


@pytest.fixture(scope="session")
def merge_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("shim")
    server = Server(shim.build(place), place / "log", "merges")
    yield server
    server.close()


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory, merge_server: Server) -> Iterator[Kitchen]:
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch.setattr)
        yield Kitchen(tmp_path_factory.mktemp("merges"), merge_server)
