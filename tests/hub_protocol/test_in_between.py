"""What comes between the parts of an upload, or while it waits for an end that nobody says: each that was acknowledged is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.api.hub_protocol import endings
from registry.api.hub_protocol.announcements import LONGEST
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CARD, CONFIG, CUT, TOOL, WEIGHTS, Hub, hub, in_files, reopened, soon

MANY = {f"checkpoint-100/{number:04}.txt": b"state" for number in range(300)}


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    return found


@pytest.fixture
def adapters(tmp_path: Path) -> list[dict[str, bytes]]:
    made = [write_one(tmp_path / f"{alpha}", value=alpha / 64, lora_alpha=alpha) for alpha in (8, 16, 32)]
    return [{path: data for path, data in in_files(each).items() if path in (CONFIG, WEIGHTS)} for each in made]


def open_ended(adapter: dict[str, bytes]) -> dict[str, bytes]:
    """As many files as clients ask about at once, of which ten are pickles: nothing says that no other will come."""
    pickles = {f"checkpoint-100/{number:04}.pt": b"state" for number in range(10)}
    rest = dict(list(MANY.items())[: LONGEST - len(adapter) - len(pickles)])
    return {**adapter, **pickles, **rest}


def pushed(here: Hub, files: dict[str, bytes], *, title: str = "upload") -> str:
    """As a client does in one commit: without what the server does not want."""
    answers = here.announce("team/x", files).json()["files"]
    return here.committed("team/x", {row["path"]: files[row["path"]] for row in answers if not row["shouldIgnore"]}, title=title)


def is_of(here: Hub, tag: str, adapter: dict[str, bytes]) -> bool:
    return {path: here.read("team/x", path, tag) for path in adapter} == adapter


def test_each_of_several_that_do_not_say_their_end_is_a_version(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for adapter in adapters[:2]:
        pushed(here, open_ended(adapter))
    assert here.tags("team/x") == ["v1"]
    monkeypatch.setattr(endings, "QUIET", 0.2)
    pushed(here, open_ended(adapters[2]))
    assert soon(lambda: here.tags("team/x") == ["v1", "v2", "v3"])
    assert [is_of(here, f"v{number + 1}", adapter) for number, adapter in enumerate(adapters)] == [True] * 3
    assert is_of(here, "main", adapters[2])


@pytest.mark.parametrize("who", ["writer", "admin"])
def test_what_anybody_pushes_afterwards_comes_after_it(here: Hub, adapters: list[dict[str, bytes]], who: str) -> None:
    pushed(here, {**open_ended(adapters[0]), CARD: b"# one"})
    here.who = who
    pushed(here, {CARD: b"# two"}, title="Upload README.md")
    assert (here.tags("team/x"), here.read("team/x", CARD)) == (["v1"], b"# two")
    pushed(here, adapters[1])
    assert here.tags("team/x") == ["v1", "v2"]
    assert is_of(here, "v1", adapters[0])
    assert is_of(here, "main", adapters[1])


def test_a_push_that_names_the_answer_before_as_its_parent_follows_it(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    made = pushed(here, open_ended(adapters[0]))
    here.announce("team/x", {CARD: b"# two"})
    here.committed("team/x", {CARD: b"# two"}, parent=made)
    assert (here.tags("team/x"), here.read("team/x", CARD)) == (["v1"], b"# two")


def test_what_an_upload_is_called_and_tagged_stays_with_its_version(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    pushed(here, adapters[0])
    made = pushed(here, open_ended(adapters[1]))
    assert here.ask("POST", f"/api/models/team/x/tag/{made}", json={"tag": "exp1"}).status_code == 201
    assert here.tags("team/x") == ["exp1", "v1", "v2"]
    assert here.sha("team/x", "exp1") == here.sha("team/x", "v2") == here.sha("team/x") == made
    assert here.ask("DELETE", "/v1/adapters/team/x/versions/1", json={"reason": "old"}).status_code == 204
    assert here.sha("team/x", "exp1") == here.sha("team/x", made) == made
    here.registry.rebuild()
    assert not here.registry.doctor(deep=True).problems
    assert here.sha("team/x", "exp1") == made


def test_a_branch_at_main_is_what_was_pushed_last(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    pushed(here, open_ended(adapters[0]))
    assert here.ask("POST", "/api/models/team/x/branch/production", json={}).status_code == 201
    assert here.registry.resolve("team/x:production").number == 1


def test_what_was_uploaded_goes_along_with_the_name(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    pushed(here, adapters[0])
    made = pushed(here, open_ended(adapters[1]))
    assert here.ask("POST", "/api/repos/move", json={"fromRepo": "team/x", "toRepo": "team/y"}).status_code == 200
    assert here.tags("team/y") == ["v1", "v2"]
    assert here.sha("team/y") == made


def test_an_upload_outlives_the_version_that_it_came_after(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(here, adapters[0])
    made = pushed(here, open_ended(adapters[1]))
    assert here.ask("DELETE", "/v1/adapters/team/x/versions/1", json={"reason": "old"}).status_code == 204
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: here.tags("team/x") == ["v2"])
    assert here.sha("team/x") == made
    assert is_of(here, "main", adapters[1])
    here.registry.gc(grace=0.0)
    assert not here.registry.doctor(deep=True).problems


@pytest.mark.parametrize("what", ["nan", "older"])
def test_what_would_be_refused_at_its_end_is_refused_at_once(
    here: Hub, adapters: list[dict[str, bytes]], tmp_path: Path, what: str
) -> None:
    """Whoever sent it is gone by then."""
    broken = in_files(write_one(tmp_path / "nan", value=float("nan")))
    for adapter in adapters[:2]:
        pushed(here, adapter)
    head = here.sha("team/x")
    files = open_ended({path: data for path, data in broken.items() if path in adapters[0]} if what == "nan" else adapters[0])
    kept = {path: data for path, data in files.items() if not path.endswith(".pt")}
    here.announce("team/x", files)
    refused = here.commit("team/x", kept, title="upload")
    assert (refused.status_code, refused.json()["code"]) == {"nan": (400, "nonfinite"), "older": (409, "older-content")}[what]
    assert here.sha("team/x") == head


def test_part_of_an_upload_takes_no_tag(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    pushed(here, adapters[0])
    rows = list({CONFIG: adapters[1][CONFIG], **MANY, WEIGHTS: adapters[1][WEIGHTS]}.items())
    here.announce("team/x", dict(rows[:LONGEST]))
    made = here.committed("team/x", dict(rows[:CUT]), title="Upload folder")
    refused = here.ask("POST", f"/api/models/team/x/tag/{made}", json={"tag": "exp1"})
    assert "has no version" in refused.text, refused.text
    assert here.tags("team/x") == ["v1"]


def test_what_others_put_beside_an_adapter_stays_when_an_older_upload_ends(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    """On the Hub a commit changes the files that it names."""
    first, second, third = adapters
    pushed(here, first)
    files = {**MANY, **second}
    rows = list(files.items())
    for start in range(0, len(rows), LONGEST):
        here.announce("team/x", dict(rows[start : start + LONGEST]))
    here.committed("team/x", dict(rows[:CUT]), title="Upload folder")
    here.who = "admin"
    beside = {f"int8/{path}": data for path, data in third.items()} | {CARD: b"# B"}
    pushed(here, {**third, **beside})
    here.who = "writer"
    here.committed("team/x", dict(rows[CUT:]), title="Upload folder (part 2)")
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert is_of(here, "v2", third)
    assert is_of(here, "v3", second)
    assert {path: here.read("team/x", path) for path in beside} == beside


def test_a_second_upload_large_folder_is_not_mixed_with_the_one_before(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    """That one was complete, and waited for nothing but an end: huggingface_hub's _upload_large_folder.py asks about no file that
    it committed."""
    first, second, third = adapters
    pushed(here, {**first, "tokenizer.json": b"{}"})
    here.announce("team/x", second)
    here.committed("team/x", second, title=TOOL)
    assert here.tags("team/x") == ["v1"]
    here.announce("team/x", third)
    here.committed("team/x", {CONFIG: third[CONFIG]}, title=TOOL)
    assert here.tags("team/x") == ["v1", "v2"]
    assert is_of(here, "main", second)
    here.committed("team/x", {WEIGHTS: third[WEIGHTS]}, title=TOOL)
    pushed(here, {CARD: b"# after"})
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert is_of(here, "v3", third)


def test_a_dead_upload_large_folder_gives_the_next_nothing(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    """Of a folder that has a file of the same name."""
    here.announce("team/x", {**adapters[0], "tokenizer.json": b"{}"})
    here.committed("team/x", {CONFIG: adapters[0][CONFIG], "tokenizer.json": b"{}"}, title=TOOL)
    here.announce("team/x", adapters[1])
    here.committed("team/x", adapters[1], title=TOOL)
    assert here.tags("team/x") == ["v1"]
    assert is_of(here, "v1", adapters[1])
    assert "tokenizer.json" not in here.files("team/x")


def test_half_of_an_upload_large_folder_is_no_version_because_something_else_came(
    here: Hub, adapters: list[dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are still being hashed, and were not announced; or it died."""
    first, second, third = adapters
    pushed(here, first)
    here.announce("team/x", {CONFIG: second[CONFIG]})
    here.committed("team/x", {CONFIG: second[CONFIG]}, title=TOOL)
    pushed(here, {CARD: b"# between"})
    assert here.tags("team/x") == ["v1"]
    pushed(here, third)
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: drafts_awaited(here) == [])
    assert here.tags("team/x") == ["v1", "v2"]
    assert is_of(here, "main", third)


def drafts_awaited(here: Hub) -> list[str]:
    noted = [json.loads(path.read_bytes()) for path in (here.store / "server" / "announced").iterdir()]
    return [upload["draft"] for each in noted for upload in each["uploads"] if upload["draft"]]


def test_a_copy_is_made_as_often_as_it_is_asked_for(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    """Clients announce nothing of what they copy from another revision."""
    first, second, third = adapters
    for adapter in (first, second):
        pushed(here, {**adapter, CARD: b"# one"})
    here.committed("team/x", {"B.md": b"# one"}, title="copy")
    here.committed("team/x", {}, deleted=("B.md",), title="delete")
    here.committed("team/x", {"B.md": b"# one"}, title="copy")
    assert "B.md" in here.files("team/x")
    restored = {CONFIG: second[CONFIG], WEIGHTS: first[WEIGHTS], "vocab.json": b"{}"}
    here.committed("team/x", restored, title="restore")
    pushed(here, {**third, "vocab.json": b"[]"})
    assert here.tags("team/x") == ["v1", "v2", "v3", "v4"]
    refused = here.commit("team/x", restored, title="restore")
    assert (refused.status_code, "3" in refused.text) == (409, True)  # v3 is that already


def test_a_copy_is_of_no_upload_that_died(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    pushed(here, {**adapters[0], CARD: b"# one"})
    dead = {CARD: b"# dead", **adapters[1], **MANY}
    rows = list(dead.items())
    here.announce("team/x", dict(rows[:LONGEST]))
    here.committed("team/x", dict(rows[:CUT]), title="Upload folder")
    here.committed("team/x", {CARD: b"# copied"}, title="copy")
    assert here.read("team/x", CARD) == b"# copied"
    here.committed("team/x", {WEIGHTS: adapters[2][WEIGHTS]}, title="copy weights")
    assert here.tags("team/x") == ["v1", "v2"]
    assert here.read("team/x", WEIGHTS, "v2") == adapters[2][WEIGHTS]


def test_a_copy_is_of_no_upload_whose_unchanged_files_did_not_come(here: Hub, adapters: list[dict[str, bytes]]) -> None:
    side = {"notes/a.txt": b"1", "LICENSE": b"l"}
    for adapter in adapters[:2]:
        here.announce("team/x", {**adapter, **side})
        here.committed("team/x", adapter if here.tags("team/x") else {**adapter, **side}, title="upload")
    here.who = "admin"
    pushed(here, adapters[2])
    here.who = "writer"
    here.committed("team/x", {WEIGHTS: adapters[0][WEIGHTS]}, title="weights of v1 again")
    assert here.tags("team/x") == ["v1", "v2", "v3", "v4"]
    assert here.read("team/x", WEIGHTS) == adapters[0][WEIGHTS]
