"""Connections that ask nothing, or never come to an end with asking."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from registry.api import connections
from registry.api.connections import Connections
from registry.api.settings import Settings
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found


def connected(here: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", here.port), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """Until the server closes it."""
    received = b""
    while data := connection.recv(1 << 16):
        received += data
    return received


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"y" * (66 << 10),
        HEAD + b"X: " + b"y" * (66 << 10) + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * (11 << 10),
        b"GET /" + b"y" * (66 << 10),
    ],
    ids=["one without end", "one", "many", "path"],
)
def test_headers_that_are_too_long(here: Site, head: bytes) -> None:
    with connected(here) as connection:
        connection.sendall(head)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"headers-too-long" in answer


def test_headers_of_a_later_request_that_are_too_long(here: Site) -> None:
    with connected(here) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(HEAD + b"X: " + b"y" * (66 << 10))
        assert b"HTTP/1.1 431" in everything(connection)


def test_headers_that_are_long(here: Site) -> None:
    with connected(here) as connection:
        connection.sendall(HEAD + b"X: " + b"y" * (60 << 10) + b"\r\nConnection: close\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("surplus", [b"x" * 500, b"GET / HTTP/9.9\r\n\r\n", b"\0"], ids=["bytes", "version", "zero"])
def test_a_request_is_answered_though_what_comes_behind_it_is_none(here: Site, surplus: bytes) -> None:
    """As a body is that is longer than its sender says."""
    data = b"y" * 500
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    lines = [f"PUT /v1/blobs/{digest} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {here.tokens['bob']}"]
    head = "\r\n".join([*lines, "Content-Type: application/octet-stream", "Content-Length: 500", "", ""]).encode()
    for status in (b"201", b"200"):
        with connected(here) as connection:
            connection.sendall(head + data + surplus)
            answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.lower().count(b"connection: close") == 1
        assert answer.count(b"HTTP/1.1") == 1


def test_trailers_without_end(here: Site) -> None:
    token = f"Authorization: Bearer {here.tokens['bob']}\r\n\r\n".encode()
    with connected(here) as connection, suppress(ConnectionError):  # it closes without reading the rest
        connection.sendall(CHUNKED + token + b"0\r\nX: ")
        for _ in range(64):
            connection.sendall(b"y" * (64 << 10))
        assert everything(connection) == b""


def test_what_is_no_request_is_told_so_in_a_problem_document(here: Site) -> None:
    with connected(here) as connection:
        connection.sendall(b"\x16\x03\x01\x00\r\n\r\n")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", [], 400),
        ("1.1", ["localhost"], 200),
        ("1.1", ["localhost", "localhost"], 400),
        ("1.1", ["localhost", "registry.example"], 400),
        ("1.0", [], 200),
        ("1.0", ["localhost", "registry.example"], 400),
    ],
)
def test_a_request_has_one_host(here: Site, version: str, hosts: list[str], status: int) -> None:
    """RFC 9112, 3.2. Also where an answer is there already that was given to the one host."""
    look_up = "/v1/adapters/b/open"
    for path in ("/healthz", *[look_up] * 2):
        lines = [f"GET {path} HTTP/{version}", *(f"HOST: {host}" for host in hosts), f"Authorization: Bearer {here.tokens['bob']}"]
        with connected(here) as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            answer = everything(connection)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (path, answer)
        assert (b"invalid-host" in answer) is (status == 400)


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HT", HEAD, HEAD + b"\r\n\r\n\r\n", CHUNKED + b"\r\n1\r\n{"], ids=repr
)
def test_who_does_not_go_on_asking_is_let_go(here: Site, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with connected(here) as connection:
        connection.sendall(begun)
        if begun.startswith(CHUNKED):  # refused without a token, and its body goes on coming
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")
            connection.sendall(b"\r\n1\r\n ")
        everything(connection)


def test_more_than_there_is_room_for_are_refused(
    tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_room", lambda: 3)
    with site(tmp_path, write_adapter) as here:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connected(here)).sendall(HEAD[:5])
            with connected(here) as connection:
                assert everything(connection).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert here.ask("GET", "/healthz").status == 200


def test_one_address_gets_no_more_than_its_share() -> None:
    found = Connections(Settings(connections_per_address=2))
    found.of_address.update({"192.0.2.1": 2, "127.0.0.1": 100})
    assert found.is_full_for("192.0.2.1", 102)
    assert not found.is_full_for("192.0.2.2", 102)
    assert not found.is_full_for("127.0.0.1", 102)
    proxied = Connections(Settings(connections_per_address=2, public_url="https://registry.example"))
    proxied.of_address.update({"192.0.2.1": 2})
    assert not proxied.is_full_for("192.0.2.1", 2)
