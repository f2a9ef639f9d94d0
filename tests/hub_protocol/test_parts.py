"""Uploads in several commits, by several at once: each is one version, and nothing is mixed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from registry.api.hub_protocol import endings
from registry.api.hub_protocol.announcements import LONGEST
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CARD, CONFIG, TOOL, WEIGHTS, Hub, in_files


def test_of_an_upload_in_parts_nothing_is_mixed_with_what_only_looks_the_same(here: Hub, tmp_path: Path) -> None:
    """Retrained weights begin as the old ones do: with the same table. So they have to come, and nothing is a version before."""
    old = in_files(write_one(tmp_path / "old", width=200))
    new = in_files(write_one(tmp_path / "new", width=200, value=0.25, lora_alpha=9))
    assert (len(old[WEIGHTS]), old[WEIGHTS][:200]) == (len(new[WEIGHTS]), new[WEIGHTS][:200])
    start = len(new[WEIGHTS]) - 8
    new[WEIGHTS] = old[WEIGHTS][:start] + new[WEIGHTS][start:]
    here.create("team/x")
    before = here.committed("team/x", old)
    answered = {row["path"]: row for row in here.announce("team/x", new).json()["files"]}
    assert "oid" not in answered[WEIGHTS]
    here.committed("team/x", {CONFIG: new[CONFIG]}, title="upload")
    assert here.sha("team/x") == before
    here.committed("team/x", {path: data for path, data in new.items() if path != CONFIG}, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert {path: here.read("team/x", path) for path in new} == new


def test_what_makes_a_version_always_comes(here: Hub, first: dict[str, bytes]) -> None:
    """A client that is told what is here leaves out what is the same; of side files alone, and nothing becomes a version twice."""
    here.create("team/x")
    made = here.committed("team/x", first)
    told = [row["path"] for row in here.announce("team/x", first).json()["files"] if "oid" in row]
    assert told == [CARD]
    assert here.committed("team/x", {CONFIG: first[CONFIG], WEIGHTS: first[WEIGHTS]}, title="again") == made
    assert here.tags("team/x") == ["v1"]


def test_two_who_push_at_once_are_never_mixed(here: Hub, tmp_path: Path, first: dict[str, bytes]) -> None:
    """What the one leaves out, because it is here, may be replaced by the other before the commit."""
    one = {**first, WEIGHTS: first[WEIGHTS][:-4] + b"\0\0@?"}  # as long, and with the same beginning
    other = in_files(write_one(tmp_path / "other", value=0.25, lora_alpha=64))
    here.create("team/x")
    here.committed("team/x", first)
    answered = {row["path"]: row for row in here.announce("team/x", one).json()["files"]}
    here.committed("team/x", other, title="meanwhile", who="admin")
    here.committed("team/x", {path: data for path, data in one.items() if path == WEIGHTS or "oid" not in answered[path]})
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert [here.read("team/x", CONFIG, tag) for tag in ("v2", "v3", "main")] == [other[CONFIG], one[CONFIG], one[CONFIG]]
    assert [here.read("team/x", WEIGHTS, tag) for tag in ("v2", "v3", "main")] == [other[WEIGHTS], one[WEIGHTS], one[WEIGHTS]]


def test_an_upload_in_parts_is_one_version(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """main shows nothing of it before its end, and an upload of something else meanwhile is none of its parts."""
    here.create("team/x")
    before = here.committed("team/x", first)
    coming = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode(), "tokenizer.json": b"{}"}
    coming[WEIGHTS] = second[WEIGHTS] + b""
    assert here.announce("team/x", coming).status_code == 200
    part = here.committed("team/x", {CONFIG: coming[CONFIG]}, title="upload")
    assert here.sha("team/x") == before != part
    here.committed("team/x", {CARD: b"# meanwhile"})
    assert here.read("team/x", CONFIG) == first[CONFIG]
    here.committed("team/x", {WEIGHTS: coming[WEIGHTS], "tokenizer.json": b"{}"}, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert {path: here.read("team/x", path) for path in coming} == coming


def of_many(files: dict[str, bytes], *, first: list[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """As two askings, of which the first is as long as they get."""
    data = {f"data/{number:03}.txt": b"%d" % number for number in range(LONGEST - len(first))}
    asked = {**{path: files[path] for path in first}, **data}
    return asked, {path: data for path, data in files.items() if path not in asked}


def parts(asked: tuple[dict[str, bytes], ...]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Cut where clients cut."""
    rows = [row for each in asked for row in each.items()]
    return dict(rows[:250]), dict(rows[250:])


@pytest.mark.parametrize("early", [True, False])
def test_an_upload_that_is_asked_about_in_parts_is_one_version(here: Hub, first: dict[str, bytes], early: bool) -> None:
    """Whether the second asking comes before the first commit or after it."""
    here.create("team/x")
    before = here.committed("team/x", {**first, "tokenizer.json": b'{"of": 1}'})
    config = json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()
    asked = of_many({**first, CONFIG: config, "tokenizer.json": b'{"of": 2}'}, first=[CONFIG, WEIGHTS])
    begin, end = parts(asked)
    here.announce("team/x", asked[0])
    if early:
        here.announce("team/x", asked[1])
    here.committed("team/x", begin, title="upload")
    assert here.sha("team/x") == before
    if not early:
        here.announce("team/x", asked[1])
    here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert here.read("team/x", CONFIG) == config
    assert here.read("team/x", "tokenizer.json") == b'{"of": 2}'
    assert len([path for path in here.files("team/x") if path.startswith("data/")]) == LONGEST - 2


def test_an_upload_that_is_as_long_as_an_asking_is_a_version_at_its_end(here: Hub, first: dict[str, bytes]) -> None:
    here.create("team/x")
    asked, nothing = of_many(first, first=list(first))
    assert not nothing
    here.announce("team/x", asked)
    for title, part in zip(("upload", "upload (part 2)"), parts((asked,)), strict=True):
        assert here.tags("team/x") == []
        here.committed("team/x", part, title=title)
    assert here.tags("team/x") == ["v1"]


def test_a_long_upload_that_broke_off_is_not_in_the_next_one(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """Neither in a repetition, nor in one file, nor in what older clients commit at once."""
    here.create("team/x")
    before = here.committed("team/x", first)
    config = json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()
    asked = of_many({**second, CONFIG: config, "tokenizer.json": b"{}"}, first=[CONFIG, WEIGHTS])
    here.announce("team/x", asked[0])
    here.announce("team/x", asked[1])
    here.committed("team/x", parts(asked)[0], title="upload")
    assert here.sha("team/x") == before
    here.announce("team/x", {"vocab.json": b"{}"})
    here.committed("team/x", {"vocab.json": b"{}"}, title="a file")
    assert here.tags("team/x") == ["v1", "v2"]
    assert (here.read("team/x", CONFIG), here.read("team/x", WEIGHTS)) == (first[CONFIG], first[WEIGHTS])
    for each in asked:
        here.announce("team/x", each)
    begin, end = parts(asked)
    here.committed("team/x", begin, title="upload")
    assert here.tags("team/x") == ["v1", "v2"]
    here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert {path: here.read("team/x", path) for path in (CONFIG, WEIGHTS)} == {CONFIG: config, WEIGHTS: second[WEIGHTS]}
    for each in asked:
        here.announce("team/x", each)
    here.committed("team/x", {**begin, **end, "merges.txt": b"a b"}, title="at once")
    assert here.tags("team/x") == ["v1", "v2", "v3", "v4"]


def test_pieces_of_a_refused_part_make_no_version(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Newer clients cut what is refused, and commit the pieces."""
    here.create("team/x")
    before = here.committed("team/x", first)
    broken = json.dumps({**json.loads(first[CONFIG]), "r": 64}).encode()
    here.announce("team/x", {CONFIG: broken, WEIGHTS: second[WEIGHTS]})
    assert here.commit("team/x", {CONFIG: broken, WEIGHTS: second[WEIGHTS]}).status_code == 400
    here.committed("team/x", {WEIGHTS: second[WEIGHTS]})
    assert here.commit("team/x", {CONFIG: broken}, title="a commit (part 2)").status_code == 400
    assert here.sha("team/x") == before


def test_two_jobs_of_one_token_are_two_versions(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """What the one asked about is not awaited of the other."""
    here.create("team/x")
    longer = {**second, "tokenizer.json": b"{}"}
    here.announce("team/x", first)
    here.announce("team/x", longer)
    here.committed("team/x", first, title="one")
    assert here.tags("team/x") == ["v1"]
    here.committed("team/x", longer, title="other")
    assert here.tags("team/x") == ["v1", "v2"]
    assert here.read("team/x", WEIGHTS, "v1") == first[WEIGHTS]
    assert here.read("team/x", WEIGHTS, "v2") == second[WEIGHTS]




def test_a_tool_that_commits_in_any_order_makes_one_version(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """It had committed the config before it asked about the weights."""
    here.create("team/x")
    before = here.committed("team/x", first)
    config = json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()
    here.announce("team/x", {CONFIG: config, "data/a.txt": b"a"})
    here.committed("team/x", {CONFIG: config, "data/a.txt": b"a"}, title=TOOL)
    assert here.sha("team/x") == before
    here.announce("team/x", {WEIGHTS: second[WEIGHTS]})
    here.committed("team/x", {"data/b.txt": b"b"}, title=TOOL)
    assert here.sha("team/x") == before
    here.committed("team/x", {WEIGHTS: second[WEIGHTS]}, title=TOOL)
    assert here.tags("team/x") == ["v1", "v2"]
    assert (here.read("team/x", CONFIG), here.read("team/x", WEIGHTS)) == (config, second[WEIGHTS])
    assert {"data/a.txt", "data/b.txt"} < set(here.files("team/x"))


def test_the_first_adapter_of_such_a_tool_is_a_version_as_soon_as_it_is_there(here: Hub, first: dict[str, bytes]) -> None:
    """It asks about all files, and about those of a commit once more before it commits them."""
    here.create("team/x")
    here.announce("team/x", {WEIGHTS: first[WEIGHTS], "data/a.txt": b"a"})
    here.announce("team/x", {CONFIG: first[CONFIG], "data/b.txt": b"b"})
    for files in ({CONFIG: first[CONFIG], "data/b.txt": b"b"}, {WEIGHTS: first[WEIGHTS], "data/a.txt": b"a"}):
        assert here.tags("team/x") == []
        here.announce("team/x", files)
        here.committed("team/x", files, title=TOOL)
    assert here.tags("team/x") == ["v1"]
    assert sorted(here.files("team/x")) == sorted([CONFIG, WEIGHTS, "data/a.txt", "data/b.txt"])


def test_what_such_a_tool_leaves_as_it_was_is_not_waited_for_long(
    here: Hub, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without the weights; if they were announced, they are waited for."""
    monkeypatch.setattr(endings, "QUIET", 0.2)
    here.create("team/x")
    before = here.committed("team/x", first)
    configs = [json.dumps({**json.loads(first[CONFIG]), "lora_alpha": alpha}).encode() for alpha in (8, 16)]
    here.announce("team/x", {CONFIG: configs[0]})
    here.committed("team/x", {CONFIG: configs[0]}, title=TOOL)
    assert here.sha("team/x") == before
    deadline = time.monotonic() + 20
    while here.tags("team/x") == ["v1"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert here.tags("team/x") == ["v1", "v2"]
    assert (here.read("team/x", CONFIG), here.read("team/x", WEIGHTS)) == (configs[0], first[WEIGHTS])
    here.announce("team/x", {CONFIG: configs[1]})
    here.committed("team/x", {CONFIG: configs[1]}, title=TOOL)
    here.announce("team/x", {WEIGHTS: first[WEIGHTS]})
    time.sleep(0.6)
    assert here.tags("team/x") == ["v1", "v2"]
