"""Uploads that end without a word, or whose askings and commits meet: what comes after them is what it would be without them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.api.hub_protocol import announcements, commits, endings
from registry.api.hub_protocol.announcements import LONGEST
from registry.domain.names import AdapterName
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CONFIG, CUT, TOOL, WEIGHTS, Hub, hub, in_files, reopened, soon

VOCAB = {"vocab.json": b'{"a": 1}'}


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    return found


@pytest.fixture
def first(tmp_path: Path) -> dict[str, bytes]:
    return {**in_files(write_one(tmp_path / "first")), "tokenizer.json": b'{"of": 1}'}


@pytest.fixture
def second(tmp_path: Path) -> dict[str, bytes]:
    """Another adapter of the same files, and many beside it."""
    files = in_files(write_one(tmp_path / "second", value=0.25, lora_alpha=64))
    return {**files, **{f"checkpoint-100/{number:04}.txt": b"state" for number in range(900)}, "tokenizer.json": b'{"of": 2}'}


def pieces(files: dict[str, bytes], size: int) -> list[dict[str, bytes]]:
    rows = list(files.items())
    return [dict(rows[start : start + size]) for start in range(0, len(rows), size)]


def titles(name: str) -> Callable[[int], str]:
    return lambda number: f"{name} (part {number + 1})" if number else name


def of_version(here: Hub, tag: str, *paths: str) -> dict[str, bytes]:
    return {path: here.read("team/x", path, tag) for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "commits_made"), [(1, 0), (4, 0), (1, 1), (2, 2), (4, 2)])
def test_a_file_after_a_dead_upload_is_a_version_of_its_own(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], asked: int, commits_made: int
) -> None:
    """However far that one came; and done again, it is what it would have been."""
    here.committed("team/x", first)
    name = titles("upload")
    for each in pieces(second, LONGEST)[:asked]:
        here.announce("team/x", each)
    for number, part in enumerate(pieces(second, CUT)[:commits_made]):
        here.committed("team/x", part, title=name(number))
    here.announce("team/x", VOCAB)
    made = here.committed("team/x", VOCAB, title="Upload vocab.json")
    assert (here.tags("team/x"), here.sha("team/x")) == (["v1", "v2"], made)
    assert of_version(here, "main", *first, *VOCAB) == {**first, **VOCAB}
    for each in pieces(second, LONGEST):
        here.announce("team/x", each)
    for number, part in enumerate(pieces(second, CUT)):
        assert here.tags("team/x") == ["v1", "v2"]
        here.committed("team/x", part, title=name(number))
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    kept = (WEIGHTS, CONFIG, "tokenizer.json")
    assert of_version(here, "v3", *kept, *VOCAB) == {**{path: second[path] for path in kept}, **VOCAB}


def test_a_file_pushed_while_another_upload_goes_on_is_none_of_it(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """One of the files that the other brings, too; asked about before or between what the other asks."""
    here.committed("team/x", first)
    asked, parts, name = pieces(second, LONGEST), pieces(second, CUT), titles("upload")
    changed = {"tokenizer.json": b'{"of": 3}'}
    here.announce("team/x", asked[0])
    here.announce("team/x", changed)
    for each in asked[1:]:
        here.announce("team/x", each)
    here.committed("team/x", parts[0], title=name(0))
    here.committed("team/x", changed, title="Upload tokenizer.json")
    assert here.tags("team/x") == ["v1", "v2"]
    assert of_version(here, "v2", WEIGHTS, CONFIG, *changed) == {WEIGHTS: first[WEIGHTS], CONFIG: first[CONFIG], **changed}
    for number, part in list(enumerate(parts))[1:]:
        assert here.tags("team/x") == ["v1", "v2"]
        here.committed("team/x", part, title=name(number))
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    kept = (WEIGHTS, CONFIG, "tokenizer.json")
    assert of_version(here, "v3", *kept) == {path: second[path] for path in kept}


def test_side_files_of_an_upload_that_is_whole_go_to_main(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """And not to an earlier attempt at the same upload, which died."""
    here.committed("team/x", first)
    files = {path: data for path, data in second.items() if path != "tokenizer.json"}
    asked, parts, name = pieces(files, LONGEST), pieces(files, CUT), titles("upload")
    for number in range(2):
        for each in asked:
            here.announce("team/x", each)
        here.committed("team/x", {**parts[0], "README.md": b"# %d" % number}, title=name(0))
    for number, part in list(enumerate(parts))[1:]:
        here.committed("team/x", part, title=name(number))
    assert here.tags("team/x") == ["v1", "v2"]
    assert set(files) <= set(here.files("team/x"))
    assert here.read("team/x", "README.md") == b"# 1"


def test_a_tool_does_not_wait_for_an_upload_that_broke_off(here: Hub, first: dict[str, bytes]) -> None:
    here.announce("team/x", {**first, "added_tokens.json": b"{}"})
    here.announce("team/x", first)
    here.committed("team/x", first, title=TOOL)
    assert here.tags("team/x") == ["v1"]


@pytest.mark.slow
@pytest.mark.parametrize(("files", "commit"), [(755, 1), (1010, 1), (990, 2), (600, 1), (300, 1)])
def test_what_is_asked_about_during_a_commit_is_not_forgotten(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, files: int, commit: int
) -> None:
    """A preupload that was told to wait comes while a commit is being recorded."""
    here.committed("team/x", first)
    rows = list(second.items())
    coming = dict([*rows[: files - 1], rows[-1]])
    asked, parts, name = pieces(coming, LONGEST), pieces(coming, CUT), titles("upload")
    for each in asked[:commit]:
        here.announce("team/x", each)
    for number in range(commit - 1):
        here.committed("team/x", parts[number], title=name(number))
    original = commits.recorded

    def recorded(*arguments: object, **options: object) -> object:
        done = original(*arguments, **options)  # type: ignore[arg-type]
        monkeypatch.setattr(commits, "recorded", original)
        for each in asked[commit:]:
            assert here.announce("team/x", each).status_code == 200
        return done

    monkeypatch.setattr(commits, "recorded", recorded)
    for number, part in list(enumerate(parts))[commit - 1 :]:
        assert here.tags("team/x") == ["v1"]
        here.committed("team/x", part, title=name(number))
    assert here.tags("team/x") == ["v1", "v2"]
    kept = (WEIGHTS, CONFIG, "tokenizer.json")
    assert of_version(here, "v2", *kept) == {path: second[path] for path in kept}


@pytest.mark.parametrize("unchanged", [False, True])
def test_deletions_are_of_the_version_that_they_come_with(here: Hub, first: dict[str, bytes], unchanged: bool) -> None:
    """``delete_patterns="*"``: newer clients delete in their first commit, which may hold side files alone, or of them what the
    server does not have."""
    side = {f"0data/{number:03}.txt": b"data" for number in range(400)}
    here.committed("team/x", {**first, "vocab.json": b"{}", **(side if unchanged else {})})
    new = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 64}).encode(), WEIGHTS: first[WEIGHTS][:-4] + b"\0\0@?"}
    coming = {**side, **new}
    answers = [row for each in pieces(coming, LONGEST) for row in here.announce("team/x", each).json()["files"]]
    told = {row["path"] for row in answers if "oid" in row}
    begin, end = ({path: data for path, data in part.items() if path not in told} for part in pieces(coming, CUT))
    assert begin
    here.committed("team/x", begin, title="upload", deleted=("README.md", "tokenizer.json", "vocab.json"))
    assert here.tags("team/x") == ["v1"]
    assert {"tokenizer.json", "vocab.json"} < set(here.files("team/x"))
    here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert set(here.files("team/x", "v2")) == set(coming)
    assert of_version(here, "v2", *new) == new


def test_a_deletion_after_a_dead_upload_is_one(here: Hub, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    here.committed("team/x", first)
    here.announce("team/x", pieces(second, LONGEST)[0])
    here.committed("team/x", {}, title="Delete tokenizer.json", deleted=("tokenizer.json",))
    assert here.tags("team/x") == ["v1", "v2"]
    assert "tokenizer.json" not in here.files("team/x")


def test_nothing_is_awaited_of_an_upload_that_is_whole(here: Hub, first: dict[str, bytes]) -> None:
    """Nor of one that is done again."""
    for _ in range(2):
        here.announce("team/x", first)
        here.committed("team/x", first)
        noted = [json.loads(path.read_bytes()) for path in (here.store / "server" / "announced").iterdir()]
        assert [(each["askings"], each["uploads"]) for each in noted] == [([], [])]


def test_a_server_that_starts_ends_what_was_not_said_to_end(
    here: Hub, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool changed the config alone, and the server went before that had been quiet for long enough."""
    here.committed("team/x", first)
    config = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 64}).encode()}
    here.announce("team/x", config)
    here.committed("team/x", config, title=TOOL)
    monkeypatch.setattr(endings, "QUIET", 0.2)
    again = reopened(here)
    assert soon(lambda: again.tags("team/x") == ["v1", "v2"])
    assert of_version(again, "v2", CONFIG, WEIGHTS) == {**config, WEIGHTS: first[WEIGHTS]}


def test_however_long_no_server_was_there_an_upload_is_ended(
    here: Hub, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than an upload may pause that has not all come."""
    here.committed("team/x", first)
    config = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 64}).encode()}
    here.announce("team/x", config)
    here.committed("team/x", config, title=TOOL)
    for each in (here.store / "server" / "announced").iterdir():
        noted = json.loads(each.read_bytes())
        for upload in noted["uploads"]:
            upload["at"] -= 2 * announcements.LIFETIME
        each.write_text(json.dumps(noted))
        os.utime(each, (0, 0))
    announcements.Announcements(here.store / "server" / "announced").sweep()
    monkeypatch.setattr(endings, "QUIET", 0.2)
    again = reopened(here)
    assert soon(lambda: again.tags("team/x") == ["v1", "v2"])
    assert of_version(again, "v2", CONFIG, WEIGHTS) == {**config, WEIGHTS: first[WEIGHTS]}


def test_of_an_adapter_that_is_gone_no_upload_is_kept(
    here: Hub, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.committed("team/x", first)
    config = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 64}).encode()}
    here.announce("team/x", config)
    here.committed("team/x", config, title=TOOL)
    with here.registry.catalog.writing() as writer:
        writer.remove_adapter(AdapterName.parse("team/x"), "a test")
    monkeypatch.setattr(endings, "QUIET", 0.0)
    reopened(here)
    assert soon(lambda: not list((here.store / "server" / "announced").iterdir()))


def test_a_collector_takes_the_drafts_that_nobody_went_on_with(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """And no other: what is awaited, and what a version came of, stays; what goes is what a dry run says."""
    here.committed("team/x", first)
    here.create("team/dead")
    name, parts = titles("upload"), pieces(second, CUT)
    for each in pieces(second, LONGEST):
        here.announce("team/x", each)
    drafts = [here.committed("team/x", part, title=name(number)) for number, part in enumerate(parts[:2])]
    for each in pieces(second, LONGEST):
        here.announce("team/dead", each)
    here.committed("team/dead", parts[0], title="upload")
    unchanged = here.registry.catalog.commits(AdapterName.parse("team/x"))
    assert here.registry.gc(grace=60.0).leftovers == ()
    assert here.registry.catalog.commits(AdapterName.parse("team/x")) == unchanged
    for number, part in list(enumerate(parts))[2:]:
        here.committed("team/x", part, title=name(number))
    assert here.tags("team/x") == ["v1", "v2"]
    planned = here.registry.gc(grace=0.0, dry_run=True)
    done = here.registry.gc(grace=0.0)
    assert (sorted(done.blobs), done.bytes, done.leftovers) == (sorted(planned.blobs), planned.bytes, planned.leftovers)
    assert [each.split()[0] for each in done.leftovers] == ["team/dead"]
    assert len(done.blobs) == len(set(parts[0].values()) - set(first.values()) - set(second.values())) + 1
    assert {each.id for each in here.registry.catalog.commits(AdapterName.parse("team/x"))} >= set(drafts)
    assert here.registry.gc(grace=0.0).leftovers == ()
    here.registry.rebuild()
    assert not here.registry.doctor(deep=True).problems
    again = reopened(here)
    assert of_version(again, "v2", WEIGHTS, CONFIG) == {path: second[path] for path in (WEIGHTS, CONFIG)}
    assert again.commit("team/dead", parts[1], title=name(1)).status_code == 409
    for number, part in enumerate(parts):
        if number == 0:
            for each in pieces(second, LONGEST):
                again.announce("team/dead", each)
        again.committed("team/dead", part, title=name(number))
    assert again.tags("team/dead") == ["v1"]
