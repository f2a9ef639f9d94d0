"""An adapter that is renamed, or pushed to in other ways, while uploads to it wait for an end that nobody says: none is lost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.api.hub_protocol import endings
from registry.domain.names import AdapterName
from registry.errors import UnavailableError
from tests.hub_protocol.in_process import CONFIG, TOOL, WEIGHTS, Hub, hub, reopened, soon
from tests.hub_protocol.test_in_between import adapters, drafts_awaited, is_of, open_ended, pushed

__all__ = ["adapters"]

X, Y = AdapterName.parse("team/x"), AdapterName.parse("team/y")


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    found.who = "admin"
    return found


def begun(here: Hub, adapters: list[dict[str, bytes]], *, half: bool) -> dict[str, bytes]:
    """A version, and an upload of another one that waits; what it will be."""
    pushed(here, adapters[0])
    if not half:
        pushed(here, open_ended(adapters[1]))
        return adapters[1]
    here.announce("team/x", {CONFIG: adapters[1][CONFIG]})
    here.committed("team/x", {CONFIG: adapters[1][CONFIG]}, title=TOOL)
    return {CONFIG: adapters[1][CONFIG], WEIGHTS: adapters[0][WEIGHTS]}


def found(here: Hub, name: str, tag: str, adapter: dict[str, bytes]) -> bool:
    return {path: here.read(name, path, tag) for path in adapter} == adapter


@pytest.mark.parametrize("half", [False, True])
def test_an_upload_goes_with_an_adapter_that_another_process_renames(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """Also if another adapter has the name then."""
    wanted = begun(here, adapters, half=half)
    with here.registry.catalog.writing() as writer:
        writer.rename_adapter(X, Y)
    here.create("team/x")
    pushed(here, adapters[2])
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: here.tags("team/y") == ["v1", "v2"])
    assert soon(lambda: not drafts_awaited(here))
    assert found(here, "team/y", "v2", wanted)
    assert found(here, "team/x", "main", adapters[2])


@pytest.mark.parametrize("half", [False, True])
def test_an_upload_goes_with_an_adapter_that_is_renamed(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    wanted = begun(here, adapters, half=half)
    step = {"do": "rename_adapter", "adapter": "team/x", "to": "team/y"}
    done = here.ask("POST", "/v1/transactions", json={"steps": [step], "commit": True})
    assert done.status_code == 200, done.text
    assert here.tags("team/y") == (["v1"] if half else ["v1", "v2"])
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: here.tags("team/y") == ["v1", "v2"])
    assert found(here, "team/y", "v2", wanted)


def test_what_is_pushed_after_an_upload_is_the_newer_one(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    here.create("team/z")
    digests = {path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in adapters[2].items()}
    here.announce("team/z", adapters[2])
    here.committed("team/z", adapters[2])
    begun(here, adapters, half=False)
    files = [{"path": path, "digest": digest} for path, digest in digests.items()]
    done = here.ask("POST", "/v1/adapters/team/x/versions", json={"files": files})
    assert done.status_code == 201, done.text
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert [is_of(here, f"v{number + 1}", adapter) for number, adapter in enumerate(adapters)] == [True] * 3
    assert is_of(here, "main", adapters[2])


def test_an_alias_goes_back_though_an_upload_cannot_end(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, for example; the upload ends when there is room."""
    begun(here, adapters, half=False)

    def full(*_arguments: object) -> None:
        raise UnavailableError("the disk is full", code="no-space")

    with monkeypatch.context() as patched:
        patched.setattr(endings, "_finish_now", full)
        step = {"do": "move_alias", "adapter": "team/x", "alias": "production", "to": 1}
        done = here.ask("POST", "/v1/transactions", json={"steps": [step], "commit": True})
    assert done.status_code == 200, done.text
    assert here.registry.aliases("x") == {"production": 1}
    assert here.tags("team/x") == ["v1"]
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: here.tags("team/x") == ["v1", "v2"])
