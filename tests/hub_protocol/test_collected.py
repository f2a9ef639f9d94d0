"""A collector between two steps of an upload: what was promised is kept, and what is gone is asked for again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from registry.api.hub_protocol import commits
from registry.domain.digest import Digest
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CARD, WEIGHTS, Hub, hub, in_files


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    return found


@pytest.mark.parametrize("path", [WEIGHTS, CARD])
def test_what_was_collected_before_the_commit_is_to_be_sent_again(
    here: Hub, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**in_files(write_one(tmp_path / "a")), CARD: b"# a card"}
    as_it_is = commits._commit

    def collected(*arguments: Any) -> Any:
        here.registry.blobs.delete(Digest.of(files[path]))
        return as_it_is(*arguments)

    monkeypatch.setattr(commits, "_commit", collected)
    refused = here.commit("team/x", files)
    assert (refused.status_code, refused.json()["code"]) == (400, "not-uploaded")
    assert path in refused.json()["error"]
    monkeypatch.undo()
    here.committed("team/x", files)
    assert here.read("team/x", path) == files[path]
    assert not here.registry.doctor(deep=True).problems


def test_what_need_not_be_sent_is_not_collected_next(here: Hub) -> None:
    """Of an upload that died long ago."""
    data = bytes(100)
    digest = Digest.of(data)
    here.registry.blobs.put(digest, iter((data,)))
    (blob,) = (path for path in (here.store / "blobs").rglob(digest.hex[:4] + "*") if path.is_file())
    os.utime(blob, (0, time.time() - 10**6))
    wanted = {"operation": "upload", "objects": [{"oid": digest.hex, "size": len(data)}]}
    asked = here.ask("POST", "/team/x.git/info/lfs/objects/batch", json=wanted, who="admin").json()["objects"][0]
    assert "actions" in asked  # nobody in particular sent it
    assert here.ask("PUT", asked["actions"]["upload"]["href"], content=data).status_code == 200
    assert here.registry.gc().blobs == ()
    os.utime(blob, (0, time.time() - 10**6))
    asked = here.ask("POST", "/team/x.git/info/lfs/objects/batch", json=wanted, who="admin").json()["objects"][0]
    assert "actions" not in asked
    assert here.registry.gc().blobs == ()
    os.utime(blob, (0, time.time() - 10**6))
    assert here.ask("POST", "/v1/blobs/missing", json={"digests": [digest]}, who="admin").json() == {"missing": []}
    assert here.registry.gc().blobs == ()
    os.utime(blob, (0, time.time() - 10**6))
    assert here.registry.gc().blobs == (digest,)
