"""What an upload's ``.gitignore`` leaves out, as Git itself says."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api.hub_protocol import ignoring
from registry.api.hub_protocol.ignoring import IgnoreRulesError, ignored_by
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import Hub, hub, in_files

WORDS = st.sampled_from(
    ["a", "b", "*.log", "secret.txt", "?b", "[ab]", "[!a]x", "*", "a*", "x", r"\#x", ".env", "b.*", "[a-c]*", r"\a", "build"]
)
NAMES = st.sampled_from(["a", "b", "x", "ab", "x.log", "secret.txt", "build", ".env", "bx", "#x", "b.txt"])
PATTERNS = st.builds(
    lambda sign, root, words, folder: sign + root + "/".join(words) + folder,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/", "**/"]),
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**"]),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    place = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", place], check=True)
    return place


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=4), paths=st.lists(PATHS, min_size=1, max_size=12, unique=True))
def test_what_git_ignores_is_left_out_and_nothing_else(repository: Path, patterns: list[str], paths: list[str]) -> None:
    agree(repository, patterns, paths)


def agree(repository: Path, patterns: list[str], paths: list[str]) -> None:
    text = "\n".join(["# a comment", "", *patterns, ""])
    (repository / ".gitignore").write_text(text)
    asked = ["git", "-C", str(repository), "check-ignore", "--no-index", "--stdin"]
    said = subprocess.run(asked, input="\n".join(paths), capture_output=True, text=True, check=False).stdout
    ignored = ignored_by(text)
    assert [path for path in paths if ignored(path)] == [path for path in paths if path in said.splitlines()]


@pytest.mark.parametrize("first", ["a", "*", "a*", "**/a", "a/a", "*/a", "**/", "x/"])
@pytest.mark.parametrize("second", ["!a/**", "!a/", "!a", "!/a/*", "!**/a", "!*/"])
def test_what_is_taken_in_again_is_what_git_takes_in_again(repository: Path, first: str, second: str) -> None:
    agree(repository, [first, second], ["a", "a/a", "a/b", "x/a", "x/a/b", "a/a/a"])


@pytest.mark.parametrize("line", ["[z-a]", "[", "a\\", "[[:foo:]]x", "!", "/", "\ud800", "\x00", "(?i)a"])
def test_a_line_that_is_no_pattern_means_nothing(line: str) -> None:
    ignored = ignored_by(f"{line}\nsecret.txt\n")
    assert (ignored("secret.txt"), ignored("adapter_config.json")) == (True, False)


@pytest.mark.parametrize("text", ["a\n" * 1001, "a" * 1001, "# a\n" * 20_000])
def test_what_is_too_much_to_be_followed_is_refused(text: str) -> None:
    with pytest.raises(IgnoreRulesError):
        ignored_by(text)


def test_patterns_that_take_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignoring, "_PATIENCE", 0.2)
    ignored = ignored_by("\n".join(["*a*" * 20 + "b"] * 1000))
    started = time.monotonic()
    with pytest.raises(IgnoreRulesError, match="too long"):
        for number in range(100_000):
            ignored("a" * 250 + f"/{number}")
    assert time.monotonic() - started < 10


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x")
    return found


def asked(here: Hub, paths: list[str], **more: object) -> dict[str, bool]:
    files = [{"path": path, "size": 5, "sample": ""} for path in paths]
    answer = here.ask("POST", "/api/models/team/x/preupload/main", json={"files": files, **more})
    assert answer.status_code == 200, answer.text
    return {each["path"]: each["shouldIgnore"] for each in answer.json()["files"]}


def test_what_the_client_brings_comes_before_what_is_there(here: Hub) -> None:
    """And what is left out is neither looked at nor waited for: code, pickles, the adapter's own files."""
    here.committed("team/x", {".gitignore": b"*.log\n", "notes.txt": b"n"})
    paths = ["secret.txt", "x.log", "train.py"]
    assert asked(here, paths[:2]) == {"secret.txt": False, "x.log": True}
    assert asked(here, paths, gitIgnore="secret.txt\n*.py\n") == {"secret.txt": True, "x.log": False, "train.py": True}
    assert asked(here, ["adapter_config.json", "a.txt"], gitIgnore="*.json") == {"adapter_config.json": True, "a.txt": False}
    files = [{"path": "secret.txt", "size": 1 << 50}, {"path": "a.bin", "size": 1}]
    answer = here.ask("POST", "/api/models/team/x/preupload/main", json={"files": files, "gitIgnore": "secret.txt"})
    warning = answer.headers["x-hf-warning"]
    assert warning.startswith("left-out; a.bin: pickles can run code")
    assert warning.endswith("secret.txt: .gitignore leaves them out")


def test_a_version_that_was_left_out_in_part_is_not_waited_for(here: Hub, tmp_path: Path) -> None:
    files = in_files(write_one(tmp_path / "a"))
    asked(here, [*files, "tokenizer.json"], gitIgnore="tokenizer.json")
    here.committed("team/x", files)
    assert here.tags("team/x") == ["v1"]


@pytest.mark.parametrize("text", ["a\n" * 1001, 5, ["a"]])
def test_what_cannot_be_followed_is_refused_before_anything_is_sent(here: Hub, text: object) -> None:
    body = {"files": [{"path": "a.txt", "size": 1}], "gitIgnore": text}
    answer = here.ask("POST", "/api/models/team/x/preupload/main", content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["code"] in ("gitignore", "invalid-body")


def test_a_stored_one_that_is_too_large_is_refused_too(here: Hub) -> None:
    here.committed("team/x", {".gitignore": b"#" * (1 << 20)})
    answer = here.announce("team/x", {"a.txt": b"a"})
    assert (answer.status_code, answer.json()["code"]) == (400, "gitignore")
    here.committed("team/x", {}, deleted=(".gitignore",))
    assert here.announce("team/x", {"a.txt": b"a"}).status_code == 200
