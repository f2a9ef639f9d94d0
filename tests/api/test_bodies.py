"""Bodies are read of those who may send them, as far as they may, and as long as they come."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.api import guards
from registry.domain.access import Action, NamespacePattern, new_token
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found


def status_of(here: Site, path: str, who: str | None, length: int, body: bytes = b"") -> bytes:
    """Of a request whose body is announced and does not come to its end."""
    token = f"Authorization: Bearer {here.tokens[who]}\r\n" if who else ""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        return connection.recv(1 << 16).split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/v1/transactions", "/v1/resolve", "/v1/adapters/b/open/versions", "/v1/nowhere"])
def test_nobody_is_refused_before_a_byte_of_the_body_came(here: Site, path: str) -> None:
    assert status_of(here, path, None, 1000) == b"HTTP/1.1 401 Unauthorized"


def test_long_bodies_are_for_those_who_may_push(here: Site) -> None:
    text, kept = new_token("reader", [Action.READ], [NamespacePattern("b/*")], expires_at=None)
    with here.shelf.catalog.writing() as writer:
        writer.add_token(kept)
    readers = Site(here.shelf, here.place, here.address, {**here.tokens, "reader": text})
    for who, path, length in (
        ("reader", "/v1/transactions", (1 << 20) + 1),
        ("bob", "/v1/resolve", (1 << 20) + 1),
        ("bob", "/v1/transactions", (16 << 20) + 1),
    ):
        assert status_of(readers, path, who, length).startswith(b"HTTP/1.1 413"), (who, path)
    body = b"{" + b" " * (1 << 20)
    assert here.ask("POST", "/v1/transactions", "bob", body, {"Content-Type": "application/json"}).code != "too-large"


def test_a_body_that_does_not_come_is_given_up(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_PATIENCE", 0.2)
    assert status_of(here, "/v1/resolve", "bob", 1000, b'{"names"') == b"HTTP/1.1 408 Request Timeout"
