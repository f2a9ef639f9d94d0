"""Where the registry is said to be: a place that cannot be one is a sentence, and nothing is made there. To whom a token goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.cli.conftest import Adapters, Said
from tests.conftest import WriteAdapter
from tests.remote.liars import Request, liar

EVERY_KIND = [["list"], ["show", "x"], ["doctor"], ["gc"], ["migrate"], ["rebuild"], ["log"], ["tag", "set", "x", "a=b"]]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ADAPTERS_TOKEN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def adapter(write_adapter: WriteAdapter) -> str:
    return str(write_adapter("my-lora"))


def said(location: str, *arguments: str, typed: str | None = None) -> Said:
    result = CliRunner().invoke(app, [*arguments, "--registry", location], input=typed, catch_exceptions=False)
    return Said(result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("location", ["localhost:18231", "registry.example:80", "[::1]:8000"])
def test_an_address_without_its_scheme_is_no_directory(adapter: str, location: str) -> None:
    for line in ([*EVERY_KIND, ["push", adapter]]):
        found = said(location, *line)
        assert (found.code, f"did you mean http://{location}?" in found.err) == (3, True), line
    assert list(Path().iterdir()) == []


def test_a_directory_may_be_called_like_an_address(adapter: str) -> None:
    assert said("./localhost:18231", "push", adapter).code == 0
    assert "my-lora" in said("localhost:18231", "list").out


LONG = f"./{'x' * 256}"


@pytest.mark.parametrize("path", ["~nobody-here/x", LONG, "./" + "x/" * 2100])
def test_what_is_no_path_is_said_for_any_verb(adapter: str, path: str) -> None:
    bases = [["push", adapter], ["check", adapter], ["export", adapter, "--to", "gguf"], ["inspect", adapter]]
    lines = [
        *([*line, "--base", path] for line in bases),
        ["check", path, "--for", "vllm"],
        ["merge", path, "--base", "./base", "-o", "out"],
        ["merge", adapter, "--base", path, "-o", "out"],
        ["combine", path, adapter, "-o", "out"],
        ["diff", path, adapter],
        ["base", "add", path],
        ["push", path],
    ]
    for line in lines:
        found = said("./store", *line)
        assert found.code in (2, 3, 6), (line, found)
        assert found.err, line
    for line in EVERY_KIND:
        assert said(path, *line).code == 3, line
    assert not Path("out").exists()


def test_a_file_is_no_registry_for_any_verb(adapter: str) -> None:
    Path("file").write_text("mine")
    for line in ([*EVERY_KIND, ["push", adapter]]):
        found = said("file", *line)
        assert (found.code, "is a file, not the directory of a registry" in found.err) == (3, True), line
    assert Path("file").read_text() == "mine"


def test_nothing_is_made_in_a_directory_of_something_else(adapter: str) -> None:
    """The adapter's own, say."""
    before = sorted(Path(adapter).iterdir())
    for line in (["push", adapter], ["token", "create", "ci", "--role", "admin"], ["base", "alias", "a/b", "c/d"]):
        found = said(adapter, *line)
        assert (found.code, "is no registry and is not empty" in found.err) == (3, True), line
    assert sorted(Path(adapter).iterdir()) == before
    assert said(adapter, "list").code == 0


@pytest.mark.parametrize("names", [[], ["lost+found"], [".gitkeep"], ["staging", "notes.txt"]])
def test_a_directory_that_is_as_good_as_empty_becomes_one(adapter: str, names: list[str]) -> None:
    Path("store").mkdir()
    for name in names:
        (Path("store") / name).mkdir()
    assert said("store", "push", adapter).code == 0
    assert said("store", "doctor", "--deep").code == 0


@pytest.mark.parametrize("location", ["http://[::1", "http://127.0.0.1:99999"])
def test_half_an_address_is_said(adapter: str, location: str) -> None:
    for line in (["list"], ["push", adapter], ["login"], ["logout"]):
        found = said(location, *line, typed="adr_x\n")
        assert (found.code, "is not the address of a server" in found.err) == (3, True), line


def answer(request: Request) -> None:
    if request.path == "/v1/whoami":
        request.document({"actor": "ci (x)", "token": {"id": "x"}})
    else:
        request.document({"answer": []})


@pytest.fixture
def overheard() -> Iterator[str]:
    """Of this machine, and not on its loopback interface by name."""
    with liar(answer) as address:
        yield address.replace("127.0.0.1", "0.0.0.0")


def test_a_token_that_can_be_overheard_is_warned_of_once(overheard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(overheard, "list").err.count("warning") == 0
    monkeypatch.setenv("ADAPTERS_TOKEN", "adr_x")
    assert said(overheard, "list").err.count("plain http") == 1
    assert said(overheard, "list", "--json").err == ""
    assert said(overheard, "list", "--quiet").err == ""
    assert said(overheard.replace("0.0.0.0", "127.0.0.1"), "list").err.count("warning") == 0
    monkeypatch.delenv("ADAPTERS_TOKEN")
    found = said(overheard, "login", typed="adr_x\n")
    assert (found.code, found.err.count("plain http")) == (0, 1)
    assert said(overheard, "list").err.count("plain http") == 1


@pytest.mark.parametrize("status", [200, 401])
def test_login_keeps_no_token_that_is_not_known(status: int) -> None:
    problem = {"code": "unauthenticated", "detail": "this needs a token", "exit_code": 9}
    with liar(lambda request: request.document({"actor": "local", "token": None, **problem}, status=status)) as address:
        found = said(address, "login", typed="adr_x\n")
    assert (found.code, "this token is not known" in found.err) == (9, True)
    assert not list(Path("..").glob("config/**/tokens.json"))


@pytest.mark.parametrize("document", [{}, {"actor": 5, "token": {}}, {"actor": "x", "token": "y"}, None, []])
def test_login_to_what_is_no_registry(document: object) -> None:
    with liar(lambda request: request.document(document)) as address:
        assert said(address, "login", typed="adr_x\n").code == 8
        assert said(address, "login", typed="\n").code == 3


@pytest.mark.parametrize("line", ["list", "show b/open", "doctor", "gc", "token list", "tag set b/open@1 k=v"])
@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"answer": {}, "problems": 5}', b"[" * 5000, b"\xff"])
def test_a_server_that_answers_as_no_registry_is_8(line: str, body: bytes) -> None:
    with liar(lambda request: request.say(body)) as address:
        assert said(address, *line.split()).code == 8


def test_the_command_line_and_the_library_look_for_the_same_kinds_of_place(adapters: Adapters, adapter: str) -> None:
    assert adapters("push", adapter).code == 0
    assert {path.name for path in adapters.registry.iterdir()} >= {"catalog.db", "journal", "blobs"}
