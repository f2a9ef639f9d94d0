"""Bodies that never come: they keep nobody else waiting, and not their own place for ever."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from registry.api.hub_protocol import asked
from registry.api.settings import Settings
from registry.connect import connect
from tests.api.served import served

#: More than there are threads for look-ups.
MANY = 80
SLOW = ["/api/models/team/x/preupload/main", "/api/models/team/x/commit/main", "/api/repos/create", "/api/validate-yaml"]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    connect(tmp_path / "store").catalog.prepare()
    with served(Settings(tmp_path / "store")) as address:
        port = int(address.rpartition(":")[2])
        assert ask(port, "POST", "/api/repos/create", {"organization": "team", "name": "x"}) == 200
        yield port


def ask(port: int, method: str, path: str, document: object = None) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, json.dumps(document) if document is not None else None)
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def begun(port: int, path: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{{".encode())
        yield connection


@pytest.mark.parametrize("path", SLOW)
def test_others_are_answered(port: int, path: str) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(begun(port, path))
        assert ask(port, "GET", "/api/models/team/x/refs") == 200
        assert ask(port, "GET", "/v1/adapters") == 200
        commit = {"key": "header", "value": {"summary": "nothing"}}
        assert ask(port, "POST", "/api/models/team/x/commit/main", commit) == 200


@pytest.mark.parametrize("path", SLOW)
def test_who_drips_is_let_go(port: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "_PATIENCE", 1.0)
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.05):
            connection.sendall(b" ")

    with begun(port, path) as connection:
        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        try:
            answer = connection.recv(4096)
        finally:
            done.set()
            dripping.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"slower than 1,024 bytes a second" in answer
    assert b"connection: close" in answer.lower()
