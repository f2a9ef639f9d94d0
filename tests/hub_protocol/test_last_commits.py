"""Which commit a client is told touched a file last: the one that git names, of the same history."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CARD, CONFIG, WEIGHTS, Hub, reopened

NAME = "team/x"


class Git:
    """A repository with the same commits; a file holds what the server says git calls it, and a title the id that it has there."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self("init", "-q")
        self("config", "user.email", "nobody@localhost")
        self("config", "user.name", "nobody")

    def __call__(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self._place, check=True, capture_output=True, text=True).stdout.strip()

    def replay(self, here: Hub) -> dict[str, str]:
        """Id there → id here."""
        found = {}
        for commit in reversed(here.get(f"/api/models/{NAME}/commits/main")):
            self("rm", "-rq", "--ignore-unmatch", ".")
            for row in here.get(f"/api/models/{NAME}/tree/{commit['id']}?recursive=true"):
                if row["type"] == "file":
                    file = self._place / row["path"]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(row["oid"])
            self("add", "-A")
            self("commit", "-q", "--allow-empty", "-m", commit["id"])
            found[commit["id"]] = self("rev-parse", "HEAD")
        return found

    def last(self, commit: str, path: str) -> str:
        return self("log", "-1", "--format=%s", commit, "--", path)


def expanded(here: Hub, revision: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = here.get(f"/api/models/{NAME}/tree/{revision}?recursive=true&expand=true")
    return rows


@pytest.fixture
def told(here: Hub, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> Hub:
    """Cards and versions, files that come, go and come back, and what the command line pushed in between."""
    here.create(NAME)
    here.committed(NAME, first)
    here.committed(NAME, {CARD: b"# other", "notes/a.txt": b"a"}, title="words\n\nand more of them")
    here.committed(NAME, {WEIGHTS: second[WEIGHTS], "notes/b.txt": b"b"})
    here.committed(NAME, {}, deleted=("notes/a.txt",))
    here.registry.push(write_one(tmp_path / "third", value=0.125), name="x")
    here.committed(NAME, {"notes/deep/c.txt": b"c", CARD: b"# other"})
    here.committed(NAME, {CONFIG: first[CONFIG].replace(b"{", b"{ ", 1)})
    return here


def test_the_last_commit_of_a_path_is_gits(told: Hub, tmp_path: Path) -> None:
    git = Git(tmp_path / "git")
    theirs = git.replay(told)
    assert len(theirs) >= 8
    dates = {each["id"]: (each["title"], each["date"]) for each in told.get(f"/api/models/{NAME}/commits/main")}
    for ours, commit in theirs.items():
        rows = expanded(told, ours)
        assert {row["path"]: row["lastCommit"]["id"] for row in rows} == {
            row["path"]: git.last(commit, row["path"]) for row in rows
        }
        for last in (row["lastCommit"] for row in rows):
            assert (last["title"], last["date"]) == dates[last["id"]]


def test_paths_that_are_asked_for_are_told_the_same(told: Hub) -> None:
    for revision in ("main", "v1", "v2"):
        rows = expanded(told, revision)
        wanted = {"paths": [row["path"] for row in rows], "expand": True}
        assert told.ask("POST", f"/api/models/{NAME}/paths-info/{revision}", json=wanted).json() == rows


def test_a_version_by_itself_is_told_the_same(told: Hub) -> None:
    pinned = told.get(f"/api/models/{NAME}.v2/tree/main?recursive=true&expand=true")
    assert [row["lastCommit"] for row in pinned] == [row["lastCommit"] for row in expanded(told, "v2")]


def test_of_a_base_with_another_name_too(told: Hub, tmp_path: Path) -> None:
    """Then every commit has an id of its own, which is the one that is told."""
    here = reopened(told)
    here.registry.alias_base("org/base", "org/renamed")
    git = Git(tmp_path / "git")
    theirs = git.replay(here)
    rows = expanded(here, "main")
    newest = here.get(f"/api/models/{NAME}/commits/main")[0]["id"]
    assert {row["path"]: row["lastCommit"]["id"] for row in rows} == {
        row["path"]: git.last(theirs[newest], row["path"]) for row in rows
    }


def test_nothing_older_is_looked_at_than_is_asked_for(here: Hub, tmp_path: Path) -> None:
    """What versions before that held is gone from the disk, and nobody misses it."""
    pushed = [here.registry.push(write_one(tmp_path / f"{n}", value=n + 0.5), name="x") for n in range(4)]
    for one in pushed[:2]:
        digest = one.version.digest.hex
        (here.store / "blobs" / "sha256" / digest[:2] / digest).unlink()
    cold = reopened(here)
    wanted = {"paths": [WEIGHTS], "expand": True}
    answer = cold.ask("POST", f"/api/models/{NAME}/paths-info/main", json=wanted)
    assert answer.json()[0]["lastCommit"]["id"] == cold.sha(NAME)
    assert cold.ask("POST", f"/api/models/{NAME}/paths-info/main", json={"paths": [CARD], "expand": True}).status_code == 500
