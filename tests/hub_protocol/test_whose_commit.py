"""Which upload a commit is of, where its title alone does not say: nothing is mixed, and nothing is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from registry.api.hub_protocol import endings
from registry.api.hub_protocol.announcements import LONGEST
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import CONFIG, CUT, WEIGHTS, Hub, hub, in_files

TOKENIZER = "tokenizer.json"
ADAPTER = (CONFIG, WEIGHTS, TOKENIZER)


@pytest.fixture
def first(tmp_path: Path) -> dict[str, bytes]:
    return {**in_files(write_one(tmp_path / "first")), TOKENIZER: b'{"of": 1}'}


@pytest.fixture
def here(tmp_path: Path, first: dict[str, bytes]) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    found.announce("team/x", first)
    found.committed("team/x", first, title="first")
    return found


@pytest.fixture
def second(tmp_path: Path) -> dict[str, bytes]:
    """Another adapter of the same files."""
    return {**in_files(write_one(tmp_path / "second", value=0.25, lora_alpha=64)), TOKENIZER: b'{"of": 2}'}


def cut(files: dict[str, bytes], early: tuple[str, ...], *, size: int = LONGEST) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What a client commits first, with ``early`` of the adapter, and what comes after it: as many files as ``size``."""
    ends = {path: files[path] for path in ADAPTER if path not in early}
    side = {f"checkpoint-1/{number:04}.txt": b"%d" % number for number in range(size - len(ADAPTER))}
    rows = list({**{path: files[path] for path in early}, **side, **ends}.items())
    return dict(rows[:CUT]), dict(rows[CUT:])


def adapter(here: Hub, tag: str = "main") -> dict[str, bytes]:
    return {path: here.read("team/x", path, tag) for path in ADAPTER}


def of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: files[path] for path in ADAPTER}


def test_a_folder_that_another_began_to_upload_is_uploaded_whole(here: Hub, second: dict[str, bytes]) -> None:
    """The same files under another token, after the first one's client died."""
    begin, end = cut(second, (CONFIG, WEIGHTS))
    for who in ("writer", "admin"):
        here.who = who
        here.announce("team/x", {**begin, **end})
        here.committed("team/x", begin, title="upload")
        assert adapter(here) != of(second)
    here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == of(second)


def test_files_that_were_asked_about_at_once_and_committed_one_by_one_are_one_version(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    """``preupload_lfs_files`` of two, and ``create_commit`` of each, which does not ask again."""
    coming = {path: second[path] for path in (WEIGHTS, TOKENIZER)}
    here.announce("team/x", coming)
    for path, data in coming.items():
        assert here.tags("team/x") == ["v1"]
        here.committed("team/x", {path: data}, title=f"Upload {path}")
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == {CONFIG: first[CONFIG], **coming}


@pytest.mark.parametrize("other", [False, True])
def test_a_first_part_that_is_sent_again_in_pieces_is_no_upload_of_its_own(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], other: bool
) -> None:
    """Newer clients cut a part that is on record if its answer was lost for too long. Another job may push meanwhile."""
    begin, end = cut(second, (CONFIG,))
    config = json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()
    here.announce("team/x", {**begin, **end})
    here.committed("team/x", begin, title="upload")
    if other:
        here.announce("team/x", {CONFIG: config})
    rows = list(begin.items())
    here.committed("team/x", dict(rows[:200]), title="upload")
    here.committed("team/x", dict(rows[200:]), title="upload (part 2)")
    assert here.tags("team/x") == ["v1"]
    if other:
        here.committed("team/x", {CONFIG: config}, title="other")
        assert adapter(here, "v2") == {**of(first), CONFIG: config}
    here.committed("team/x", end, title="upload (part 3)")
    assert here.tags("team/x") == ["v1", "v2", "v3"][: 3 if other else 2]
    assert adapter(here) == of(second)


def test_an_upload_that_is_done_again_does_not_wait_for_a_file_that_is_gone(here: Hub, second: dict[str, bytes]) -> None:
    """The first part is what it was before the client was killed; a file of the rest is no longer in the folder."""
    begin, end = cut(second, (CONFIG, WEIGHTS))
    for rest in ({"special_tokens_map.json": b"{}", **end}, end):
        here.announce("team/x", {**begin, **rest})
        here.committed("team/x", begin, title="upload")
        assert here.tags("team/x") == ["v1"]
    here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == of(second)
    assert "special_tokens_map.json" not in here.files("team/x")


def test_an_upload_of_which_only_the_end_is_missing_is_done_again(here: Hub, second: dict[str, bytes]) -> None:
    """The same files, at once after the client was killed: its first parts are on record as they come again."""
    begin, end = cut(second, (CONFIG,), size=2 * LONGEST - 1)
    rows = list(end.items())
    parts = [begin, dict(rows[:200]), dict(rows[200:])]
    for made in (parts[:2], parts):
        for asked in (begin | dict(rows[:6]), dict(rows[6:])):
            here.announce("team/x", asked)
        for number, part in enumerate(made):
            assert here.tags("team/x") == ["v1"]
            here.committed("team/x", part, title=f"upload (part {number + 1})" if number else "upload")
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == of(second)


def test_one_file_that_is_sent_again_after_another_push_is_not_put_beside_it(here: Hub, first: dict[str, bytes]) -> None:
    changed, meanwhile = {TOKENIZER: b'{"of": 2}'}, {**first, TOKENIZER: b'{"of": 3}'}
    here.announce("team/x", changed)
    made = here.committed("team/x", changed, title="Upload tokenizer.json")
    here.committed("team/x", meanwhile, title="meanwhile", who="admin")
    assert here.committed("team/x", changed, title="Upload tokenizer.json") == made
    assert here.tags("team/x") == ["v1", "v2", "v3"]
    assert adapter(here) == of(meanwhile)


@pytest.mark.parametrize("part", [1, 2])
def test_a_part_that_is_repeated_after_another_push_is_done_once(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], part: int
) -> None:
    """By somebody else, or by the same: its answer was lost."""
    parts = cut(second, (CONFIG,))
    here.announce("team/x", {**parts[0], **parts[1]})
    made = [here.committed("team/x", parts[0], title="upload")]
    if part == 2:
        made.append(here.committed("team/x", parts[1], title="upload (part 2)"))
        here.who = "admin"
    changed = {"notes/x.txt": b"x"} if part == 1 else {**first, TOKENIZER: b'{"of": 3}'}
    here.announce("team/x", changed)
    here.committed("team/x", changed, title="meanwhile")
    here.who = "writer"
    before = here.tags("team/x")
    again = here.committed("team/x", parts[part - 1], title="upload" if part == 1 else "upload (part 2)")
    assert (again, here.tags("team/x")) == (made[-1], before)
    if part == 1:
        here.committed("team/x", parts[1], title="upload (part 2)")
    assert adapter(here) == (of(second) if part == 1 else {**of(first), TOKENIZER: b'{"of": 3}'})


@pytest.mark.parametrize("asked", [False, True])
def test_a_part_of_what_is_not_known_is_refused(here: Hub, first: dict[str, bytes], second: dict[str, bytes], asked: bool) -> None:
    """With a status at which clients stop, and say what to do."""
    if asked:
        here.announce("team/x", {path: second[path] for path in (WEIGHTS, TOKENIZER)})
    refused = here.commit("team/x", {path: second[path] for path in (WEIGHTS, TOKENIZER)}, title="upload (part 2)")
    assert refused.status_code == 409
    assert "run the whole upload again" in refused.headers["x-error-message"]
    assert (here.tags("team/x"), adapter(here)) == (["v1"], of(first))
    for files in ({WEIGHTS: second[WEIGHTS], TOKENIZER: second[TOKENIZER]}, {CONFIG: second[CONFIG]}):
        here.announce("team/x", files)
    here.committed("team/x", of(second), title="upload")
    assert adapter(here) == of(second)


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_part_goes_on_main_if_that_is_what_came_before_it(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], meanwhile: bool
) -> None:
    """Its first part brought what main was already, and another version may have come since."""
    begin, end = cut({**second, CONFIG: first[CONFIG]}, (CONFIG,))
    here.announce("team/x", {**begin, **end})
    here.committed("team/x", begin, title="upload")
    if meanwhile:
        config = {CONFIG: json.dumps({**json.loads(first[CONFIG]), "lora_alpha": 8}).encode()}
        here.announce("team/x", config)
        here.committed("team/x", config, title="meanwhile", who="admin")
    answer = here.commit("team/x", end, title="upload (part 2)")
    assert (answer.status_code, here.tags("team/x")) == (409 if meanwhile else 200, ["v1", "v2"])
    assert adapter(here) == {**of(first), **(config if meanwhile else of({**second, CONFIG: first[CONFIG]}))}


@pytest.mark.parametrize("more", [True, False])
def test_an_upload_whose_first_part_ends_as_an_asking_does_may_go_on(
    here: Hub, first: dict[str, bytes], second: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, more: bool
) -> None:
    """Some of the files are left out, and what comes is on record before the client asks on; or it has nothing to ask."""
    if not more:
        monkeypatch.setattr(endings, "QUIET", 0.5)
    side = {f"0data/{number:03}.txt": b"data" for number in range(CUT - 1)}
    pickles = {f"0data/rng_{number}.pth": b"x" for number in range(LONGEST - CUT)}
    begin, end = {**side, CONFIG: second[CONFIG]}, {path: second[path] for path in (WEIGHTS, TOKENIZER)}
    here.announce("team/x", {**pickles, **begin})
    here.committed("team/x", begin, title="upload")
    assert here.tags("team/x") == ["v1"]
    if more:
        here.announce("team/x", end)
        here.committed("team/x", end, title="upload (part 2)")
    deadline = time.monotonic() + 20
    while here.tags("team/x") == ["v1"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == (of(second) if more else {**of(first), CONFIG: second[CONFIG]})


@pytest.mark.parametrize("at_once", [True, False])
def test_an_upload_as_long_as_an_asking_does_not_go_on_with_what_others_ask(
    here: Hub, second: dict[str, bytes], at_once: bool
) -> None:
    """Another job of the token; older clients commit everything at once."""
    begin, end = cut(second, (CONFIG,))
    here.announce("team/x", {**begin, **end})
    if not at_once:
        here.committed("team/x", begin, title="upload")
    here.announce("team/x", {"notes/x.txt": b"x"})
    if at_once:
        here.committed("team/x", {**begin, **end}, title="upload")
    else:
        here.committed("team/x", end, title="upload (part 2)")
    assert here.tags("team/x") == ["v1", "v2"]
    assert adapter(here) == of(second)
