"""Servers and clients, each in a process of its own: the constants of a client are read when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token

ROOT = Path(__file__).parents[2]
#: Where `make setup` and `make conformance` put clients of other generations, a directory each.
CLIENTS = Path(sys.prefix) / "clients"
INSTALLED = "installed"


@dataclass(frozen=True)
class Server:
    address: str
    store: Path
    tokens: Mapping[str, str]

    @property
    def requests(self) -> list[dict[str, Any]]:
        log = self.store / "requests.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def make_tokens(store: Path) -> dict[str, str]:
    """admin may do everything; writer and reader are for ``team``, other for ``other``."""
    everything = [Action.READ, Action.PUSH, Action.TAG, Action.YANK, Action.DELETE]
    wanted = {
        "admin": ([Action.ADMIN], "*"),
        "writer": (everything, "team/*"),
        "reader": ([Action.READ], "team/*"),
        "other": (everything, "other/*"),
    }
    found = {}
    with connect(store).catalog.writing() as writer:
        for name, (actions, pattern) in wanted.items():
            found[name], kept = new_token(name, actions, [NamespacePattern(pattern)], expires_at=None)
            writer.add_token(kept)
    return found


@contextmanager
def serving(store: Path, **options: object) -> Iterator[Server]:
    """``options`` are settings, and ``page``: how many files a listing gives at once."""
    registry = connect(store)
    registry.catalog.prepare()
    tokens = make_tokens(store)
    process, port = started(store, **options)
    try:
        yield Server(f"http://127.0.0.1:{port}", store, tokens)
    finally:
        process.terminate()
        process.wait(30)


def started(store: Path, **options: object) -> tuple[subprocess.Popen[str], int]:
    """The server's process, once it listens, and its port: ``port`` is that of one before, if there was one."""
    command = [sys.executable, "-m", "tests.hub_protocol.serve", str(store), json.dumps(options)]
    with open(store / "stderr", "a") as trouble:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=trouble)
    assert process.stdout is not None
    with process.stdout:
        port = process.stdout.readline().strip()
    assert port, (store / "stderr").read_text()
    return process, int(port)


def client_environment(server: Server, home: Path, version: str = INSTALLED, token: str | None = "writer") -> dict[str, str]:
    paths = [str(ROOT)] if version == INSTALLED else [str(CLIENTS / version), str(ROOT)]
    wanted = {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "ignore",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    return {**inherited, **wanted, **({"HF_TOKEN": server.tokens[token]} if token else {})}


def run_client(
    server: Server, home: Path, *arguments: str, version: str = INSTALLED, token: str | None = "writer", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, as a client of the server."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=home.parent,
        env={**client_environment(server, home, version, token), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
