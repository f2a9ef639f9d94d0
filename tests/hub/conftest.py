"""A hub on loopback, the real client of it in this process, and the command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.hub.repositories import HuggingFaceHub
from tests.hub.peer_server import TOKEN, PeerServer, peer

COMMAND = str(Path(sys.executable).with_name("adapters"))


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: the hub is on loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        assert "Traceback" not in self.err
        return json.loads(self.err)["error"]


@dataclass(frozen=True)
class Command:
    """``command("push", …)`` with ``--json``, in the directory ``work``, against the registry ``registry``."""

    place: Path
    endpoint: str

    def __call__(self, *arguments: object, json: bool = True) -> Answer:
        running = self.start(*arguments, *(["--json"] if json else []))
        out, err = running.communicate(timeout=120)
        return Answer(running.returncode, out, err)

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "ADAPTERS_REGISTRY": str(self.place / "registry"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.place / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            **variables,
        }
        words = [COMMAND, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=environment, cwd=self.place / "work", stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def server() -> Iterator[PeerServer]:
    with peer() as running:
        yield running


@pytest.fixture
def client(server: PeerServer) -> Iterator[HuggingFaceHub]:
    with HuggingFaceHub(server.address, token=TOKEN) as hub:
        yield hub


@pytest.fixture
def command(server: PeerServer, tmp_path: Path) -> Command:
    (tmp_path / "work").mkdir()
    return Command(tmp_path, server.address)
