"""What a repository's name means: an adapter, or with a suffix its alias or version; and which names are nobody's to take."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.catalog import writer
from registry.errors import ConflictError, InvalidNameError
from tests.hub_protocol.in_process import CONFIG, WEIGHTS, Hub


def test_a_suffix_is_as_hidden_as_the_adapter(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x", private=True)
    oid = here.committed("team/x", first)
    assert here.get("/api/models/team/x.v1")["sha"] == oid
    for path in ("/api/models/team/x", "/api/models/team/x.v1", "/api/models/team/x.v2", f"/team/x.v1/resolve/{oid}/{CONFIG}"):
        refused = here.ask("GET", path, who="other")
        assert (refused.status_code, refused.headers["x-error-code"]) == (404, "RepoNotFound")


def test_nobody_makes_an_adapter_that_clients_would_take_for_an_alias(
    here: Hub, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """By whichever door, with the right to push and without that to move the alias."""
    here.registry.push(tmp_path / "first", name="x", alias="production")
    here.registry.push(tmp_path / "second", name="y")
    for name in ("x.production", "X.Production", "x.v2"):
        made = here.ask("POST", "/api/repos/create", json={"organization": "team", "name": name})
        put = here.ask("PUT", f"/v1/adapters/team/{name}", json={"private": False})
        moved = here.ask("POST", "/api/repos/move", json={"fromRepo": "team/y", "toRepo": f"team/{name}"}, who="admin")
        assert [answer.status_code for answer in (made, put, moved)] == [403, 409, 409], (made.text, put.text, moved.text)
        assert [answer.json()["code"] for answer in (made, put, moved)] == ["name-clash"] * 3
        assert "choose a name without that dot" in made.headers["x-error-message"]
        with pytest.raises(ConflictError):
            here.registry.push(tmp_path / "second", name=name)
    assert here.read("team/x.production", WEIGHTS) == first[WEIGHTS]
    here.create("team/x.staging")
    refused = here.ask("POST", "/api/models/team/x/branch/staging", json={}, who="admin")
    assert (refused.status_code, refused.json()["code"]) == (409, "name-clash")


@pytest.mark.parametrize("name", ["main", "Main", "MAIN"])
def test_nothing_but_the_newest_version_is_called_main(
    here: Hub, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes], name: str
) -> None:
    """By whichever door; else team/x.main would be one version, and main of team/x another."""
    here.create("team/x")
    here.committed("team/x", first)
    here.committed("team/x", second)
    branch = here.ask("POST", f"/api/models/team/x/branch/{name}", json={"startingPoint": "v1"})
    assert (branch.status_code, branch.json()["code"]) == ((409, "branch-exists") if name == "main" else (400, "invalid-name"))
    put = here.ask("PUT", f"/v1/adapters/team/x/aliases/{name}", json={"version": 1})
    assert (put.status_code, put.json()["code"]) == (400, "invalid-name")
    for change in (
        lambda: here.registry.set_alias("x", name, 1),
        lambda: here.registry.push(tmp_path / "first", name="z", alias=name),
    ):
        with pytest.raises(InvalidNameError, match="main is the newest version"):
            change()
    assert here.registry.catalog.aliases(here.registry.adapter("x")) == {}
    assert here.registry.catalog.find_adapter(here.registry.adapter("z")) is None


def test_an_alias_main_of_an_older_registry_is_read_and_goes_away(
    here: Hub, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.create("team/x")
    here.committed("team/x", first)
    with monkeypatch.context() as older:
        older.setattr(writer, "require_no_main", lambda _alias: None)
        here.registry.set_alias("x", "Main", 1)
    assert here.registry.show("x:main").version.number == 1
    here.registry.remove_alias("x", "main")
    assert here.registry.catalog.aliases(here.registry.adapter("x")) == {}


def test_an_adapter_that_is_called_as_it_is_called_is_told_so(here: Hub, first: dict[str, bytes]) -> None:
    """It is no other that has the name."""
    here.create("team/x")
    head = here.committed("team/x", first)
    answer = here.ask("POST", "/api/repos/move", json={"fromRepo": "team/x", "toRepo": "team/X"})
    assert (answer.status_code, answer.json()["code"]) == (409, "same-name")
    assert "team/X is the name that team/x has" in answer.headers["x-error-message"]
    assert here.sha("team/x") == head
    missing = here.ask("POST", "/api/repos/move", json={"fromRepo": "team/y", "toRepo": "team/Y"})
    assert missing.status_code == 404


def test_in_an_older_registry_the_alias_and_the_version_win(
    here: Hub, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is rebuilt as it was."""
    for check in ("require_no_clash", "require_no_adapter"):
        monkeypatch.setattr(writer, check, lambda *_facts, **_more: None)
    here.registry.push(tmp_path / "first", name="x", alias="production")
    for name in ("x.production", "x.v1", "x.staging"):
        here.registry.push(tmp_path / "second", name=name)
    here.registry.push(tmp_path / "first", name="z.v1")
    here.registry.push(tmp_path / "second", name="z")
    monkeypatch.undo()
    for _ in range(2):
        assert here.read("team/x.production", WEIGHTS) == here.read("team/x.v1", WEIGHTS) == first[WEIGHTS]
        assert here.read("team/z.v1", WEIGHTS) == second[WEIGHTS]
        assert here.read("team/x.staging", WEIGHTS) == second[WEIGHTS]
        here.registry.rebuild()
    here.registry.delete("x.production@1", reason="an impostor")
    assert here.read("team/x.production", WEIGHTS) == first[WEIGHTS]
