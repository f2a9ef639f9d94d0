"""The command line against a server, each command a process of its own: what one does embedded, one does there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from registry.connect import connect
from tests.conftest import WriteAdapter, lora_tensors

ADAPTERS = str(Path(sys.executable).with_name("adapters"))


@dataclass
class Place:
    """A store, its server's address, and an administrator's token."""

    store: Path
    address: str
    token: str
    process: subprocess.Popen[str]

    def run(self, *words: str | Path, token: str | None = None, text: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ADAPTERS_REGISTRY": self.address,
            "ADAPTERS_NAMESPACE": "team",
            "ADAPTERS_TOKEN": self.token if token is None else token,
            "XDG_CONFIG_HOME": str(self.store.parent / "config"),
        }
        return subprocess.run([ADAPTERS, *map(str, words)], env=environment, capture_output=True, text=True, input=text)

    def json(self, *words: str | Path) -> object:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = tmp_path / "store"
    environment = {**os.environ, "ADAPTERS_REGISTRY": str(store)}
    made = subprocess.run([ADAPTERS, "serve", "--init"], env=environment, capture_output=True, text=True, check=True)
    command = [ADAPTERS, "serve", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert address is not None, line
    yield Place(store, address[0], made.stdout.strip(), process)
    process.terminate()
    process.wait(30)
    process.stderr.close()


@pytest.mark.slow
def test_everything_is_there_what_is_here(place: Place, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    first, second = write_adapter("my-lora"), write_adapter("other", lora_tensors(value=0.25))
    pushed = place.json("push", first, "--alias", "staging", "--tag", "a=b", "--eval", "acc=0.5")
    assert (pushed["reference"], pushed["created"]) == ("team/my-lora@1", True)  # type: ignore[index]
    again = place.json("push", first)
    assert (again["reference"], again["created"]) == ("team/my-lora@1", False)  # type: ignore[index]
    assert place.json("push", second, "--name", "my-lora")["version"] == 2  # type: ignore[index]
    (found,) = place.json("list", "--metric", "acc>=0.5", "--all-versions")  # type: ignore[misc]
    assert (found["reference"], found["aliases"], found["tags"]) == ("team/my-lora@1", ["staging"], {"a": "b"})
    assert place.run("alias", "set", "my-lora", "production", "2", "--expect", "none").returncode == 0
    assert place.run("alias", "set", "my-lora", "production", "1", "--expect", "1").returncode == 5
    closed = place.run("promote", "my-lora@1", "--alias", "production", "--min", "acc>=0.9")
    assert closed.returncode == 6
    assert place.run("promote", "my-lora@1", "--alias", "production", "--min", "acc>=0.4").returncode == 0
    assert place.json("alias", "list", "my-lora") == [{"alias": "production", "version": 1}, {"alias": "staging", "version": 1}]
    assert place.run("eval", "add", "my-lora@2", "acc=0.75").returncode == 0
    assert place.json("compare", "my-lora@1", "my-lora@2")["rows"][0]["values"] == [0.5, 0.75]  # type: ignore[index]
    assert place.run("pull", "my-lora:production", "-o", tmp_path / "back").returncode == 0
    for path in first.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert place.run("yank", "my-lora@2", "--reason", "bad").returncode == 0
    assert place.run("delete", "my-lora@2", "--reason", "gone").returncode == 0
    assert place.run("show", "my-lora@2").returncode == 4
    assert place.run("check", "my-lora@1", "--for", "vllm").returncode == 0
    assert place.run("doctor", "--deep").returncode == 0
    assert place.run("rebuild").returncode == 8
    log = place.json("log")
    assert {entry["actor"].partition(" ")[0] for entry in log[:-1]} == {"admin"}  # type: ignore[index]
    assert connect(place.store).doctor(deep=True).problems == ()


@pytest.mark.slow
def test_who_may_what(place: Place, write_adapter: WriteAdapter) -> None:
    adapter = write_adapter("x")
    made = place.run("token", "create", "ci", "--role", "writer", "--scope", "team/*", "--json")
    token = json.loads(made.stdout)["text"]
    assert place.run("push", adapter, token=token).returncode == 0
    assert place.run("push", adapter, "--name", "other/x", token=token).returncode == 9
    assert place.run("alias", "set", "x", "production", "1", token=token).returncode == 9
    assert place.run("token", "list", token=token).returncode == 9
    assert place.run("list", token="").returncode == 9
    known = json.loads(place.run("token", "list", "--json").stdout)
    (ci,) = [each for each in known if each["name"] == "ci"]
    assert token not in json.dumps(known)
    assert place.run("token", "revoke", ci["id"]).returncode == 0
    assert place.run("list", token=token).returncode == 9
    login = place.run("login", token="", text=f"{place.token}\n")
    assert login.returncode == 0, login.stderr
    kept = place.store.parent / "config" / "adapter-registry" / "tokens.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert place.run("list", token="").returncode == 0
    assert place.run("logout", token="").returncode == 0
    assert place.run("list", token="").returncode == 9


@pytest.mark.slow
def test_a_server_that_is_gone_is_named(place: Place) -> None:
    place.process.terminate()
    place.process.wait(30)
    done = place.run("list")
    assert done.returncode == 8
    assert place.address in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_killed_while_many_push(place: Place, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    """What was acknowledged is there; what was not is there whole or not at all; a second attempt makes no second version."""
    folders = [write_adapter(f"many-{index}", lora_tensors(value=1.0 + index)) for index in range(8)]
    environment = {**os.environ, "ADAPTERS_REGISTRY": place.address, "ADAPTERS_NAMESPACE": "team", "ADAPTERS_TOKEN": place.token}
    silent: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    pushers = [subprocess.Popen([ADAPTERS, "push", str(folder), "--json"], **silent) for folder in folders]
    time.sleep(1.2)
    place.process.send_signal(signal.SIGKILL)
    place.process.wait(30)
    port = place.address.rpartition(":")[2]
    again = subprocess.Popen(
        [ADAPTERS, "serve", "--port", port], env={**os.environ, "ADAPTERS_REGISTRY": str(place.store)}, stderr=subprocess.DEVNULL
    )
    try:
        answers = [(pusher.communicate(timeout=120)[0], pusher.returncode) for pusher in pushers]
        acknowledged = [json.loads(answer)["reference"] for answer, code in answers if code == 0]
        for folder in folders:
            assert place.run("push", folder).returncode == 0
        versions = [version.reference for version in connect(place.store).catalog.live_versions()]
        assert sorted(versions) == sorted(f"team/{folder.name}@1" for folder in folders)
        assert set(acknowledged) <= set(versions)
        assert connect(place.store).doctor(deep=True).problems == ()
    finally:
        again.terminate()
        again.wait(30)


@pytest.mark.slow
def test_the_address_alone_is_enough_for_a_look_up(place: Place, write_adapter: WriteAdapter) -> None:
    place.run("push", write_adapter("x"), "--alias", "production")
    asked = Request(f"{place.address}/v1/resolve/team/x?alias=production", headers={"Authorization": f"Bearer {place.token}"})
    with urlopen(asked) as answer:
        found = json.load(answer)
    weights = next(file for file in found["files"] if file["path"] == "adapter_model.safetensors")
    with urlopen(Request(weights["url"], headers={"Authorization": f"Bearer {place.token}"})) as answer:
        assert len(answer.read()) == weights["size"]


@pytest.mark.slow
def test_racing_pushes_of_the_same_content_are_one_version_and_nobody_is_refused(
    place: Place, write_adapter: WriteAdapter
) -> None:
    adapter = write_adapter("x")
    environment = {**os.environ, "ADAPTERS_REGISTRY": place.address, "ADAPTERS_NAMESPACE": "team", "ADAPTERS_TOKEN": place.token}
    silent: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pushers = [subprocess.Popen([ADAPTERS, "push", str(adapter), "--json"], **silent) for _ in range(8)]
    answers = [(*pusher.communicate(timeout=120), pusher.returncode) for pusher in pushers]
    assert [code for _, _, code in answers] == [0] * 8, [error for _, error, _ in answers]
    assert {json.loads(answer)["reference"] for answer, _, _ in answers} == {"team/x@1"}
    assert sum(json.loads(answer)["created"] for answer, _, _ in answers) == 1
