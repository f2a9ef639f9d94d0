"""A server to be attacked: two namespaces, a private adapter, a token for each of three; and what an attack must not change."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.domain.access import Action, NamespacePattern, new_token
from tests.api.served import served
from tests.conftest import WriteAdapter, lora_tensors

EVERYTHING = [Action.READ, Action.PUSH, Action.TAG, Action.YANK, Action.DELETE]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        return self.json.get("code") if "json" in self.headers.get("content-type", "") and self.body else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    shelf: Registry
    place: Path
    address: str
    tokens: Mapping[str, str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def ask(
        self, method: str, path: str, who: str | None = None, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The path goes as it is: no client tidies it up. A ``body`` that is no bytes is JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        if data is not None and not isinstance(body, bytes):
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def state(self) -> str:
        """A hash of every byte in the store's directory, and of all rows."""
        hasher = hashlib.sha256()
        for path in sorted(self.place.rglob("*")):
            if path.is_file():
                hasher.update(f"{path.relative_to(self.place)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        with sqlite3.connect(f"file:{self.place / 'catalog.db'}?mode=ro", uri=True) as database:
            hasher.update("\n".join(database.iterdump()).encode())
        database.close()
        return hasher.hexdigest()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing is written, nobody else is asked, and the server is there afterwards."""
        before = self.state()
        with watched() as seen:
            yield
        assert self.state() == before
        assert [line for line in seen if "connect" in line and f"'127.0.0.1', {self.port}" not in line] == []
        assert [line for line in seen if line.startswith("open") and ("/etc/" in line or ".." in line)] == []
        assert self.ask("GET", "/healthz").status == 200


_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "socket.connect", "os.listdir", "os.rename", "os.remove"):
        _watching[-1].append(f"{event} {arguments!r}")


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What this process, and so the server in it, opens and connects to."""
    seen: list[str] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


@contextmanager
def site(folder: Path, write_adapter: WriteAdapter, *, with_tokens: bool = True, **settings: Any) -> Iterator[Site]:
    """``alice`` owns ``a/*`` with the private ``a/secret``, ``bob`` owns ``b/*``, ``root`` is the administrator."""
    shelf = connect(folder / "store", actor="local")
    shelf.push(write_adapter("secret"), name="a/secret", alias="production", evaluations=["acc=0.77"])
    for value in (0.25, 0.75):
        shelf.push(write_adapter(f"b{value}", lora_tensors(value=value)), name="b/open", tags={"k": "v"})
    tokens: dict[str, str] = {}
    with shelf.catalog.writing() as writer:
        writer.set_private(shelf.adapter("a/secret"), private=True)
        for name, actions, pattern in (
            ("alice", EVERYTHING, "a/*"),
            ("bob", EVERYTHING, "b/*"),
            ("root", [Action.ADMIN], "*"),
        ):
            if with_tokens:
                tokens[name], kept = new_token(name, actions, [NamespacePattern(pattern)], expires_at=None)
                writer.add_token(kept)
    with served(Settings(folder / "store", pushes_per_minute=1_000_000, **settings)) as address:
        yield Site(shelf, folder / "store", address, tokens)


def sent(here: Site, data: bytes, *, patience: float = 5.0) -> bytes:
    """All that comes back until the server closes, or nothing comes for a while."""
    with socket.create_connection(("127.0.0.1", here.port), timeout=patience) as connection:
        connection.sendall(data)
        found = b""
        try:
            while chunk := connection.recv(65536):
                found += chunk
        except TimeoutError:
            pass
        return found


def head(here: Site, line: str, *headers: str) -> bytes:
    token = f"Authorization: Bearer {here.tokens['root']}"
    return "\r\n".join([line, "Host: localhost", token, *headers, "", ""]).encode()
