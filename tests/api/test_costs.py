"""Requests that lie about themselves, and cheap ones that cost much: nothing was written, and the server goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registry.domain.digest import Digest
from tests.api.sites import Site, head, sent, site
from tests.conftest import WriteAdapter

D = "sha256:" + "0" * 64


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found
        assert found.shelf.doctor(deep=True).problems == ()


# Requests that lie about themselves


SMUGGLED = b"PUT /v1/adapters/b/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Content-Length: 4", "Content-Length: 200"),
        ("Content-Length: -1",),
        ("Content-Length: 0x10",),
        ("Content-Length: 1e3",),
        ("Content-Length: +4",),
        ("Content-Length: 9223372036854775808",),
        ("Content-Length: 99999999999999999999999999",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    ],
)
def test_a_body_whose_length_is_disputed_carries_nothing_behind_it(here: Site, headers: tuple[str, ...]) -> None:
    for target in ("PUT /v1/blobs/" + D, "POST /v1/resolve"):
        with here.unchanged():
            found = sent(here, head(here, f"{target} HTTP/1.1", *headers) + b"0\r\n\r\n" + SMUGGLED, patience=1.0)
            assert found.count(b"HTTP/1.1 2") == 0, found
    assert here.ask("GET", "/v1/adapters/b/smuggled", "root").status == 404


def test_who_promises_a_body_and_sends_none_holds_up_nobody(here: Site) -> None:
    with here.unchanged():
        waiting = []
        for line in ("POST /v1/resolve", f"PUT /v1/blobs/{D}", f"PATCH /v1/uploads/{D}", "POST /v1/transactions"):
            connection = socket.create_connection(("127.0.0.1", here.port), timeout=5)
            headers = ("Content-Length: 10", "Expect: 100-continue", "Content-Type: application/json")
            connection.sendall(head(here, f"{line} HTTP/1.1", *headers, "Upload-Offset: 0", "Upload-Length: 10"))
            waiting.append(connection)
        begun = time.monotonic()
        for _ in range(20):
            assert here.ask("GET", "/v1/resolve/b/open", "bob").status == 200
        assert time.monotonic() - begun < 20
        for connection in waiting:
            connection.close()
        time.sleep(0.5)
        for path in here.place.glob("server/uploads/*/*"):
            assert path.read_bytes() == b""
            path.unlink()
            path.parent.rmdir()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, b'{"names": ["' + b"x" * (1 << 20) + b'"]}', 413),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b" + b"0" * 100, 415),
        ({"Content-Type": "application/json"}, b"[" * 100_000, 400),
        ({"Content-Type": "application/json"}, b'{"names": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        ({"Content-Type": "application/json"}, b'{"names": ["\\ud800"]}', 400),
        ({"Content-Type": "application/json"}, b'{"names": [1e400]}', 400),
        ({"Content-Type": "application/json"}, b'{"names": [NaN]}', 400),
        ({"Content-Type": "application/json"}, b"\xff\xfe{}", 400),
        ({"Content-Type": "application/json"}, b"{" + b'"a": 1, ' * 100_000 + b'"names": ["b/open"]}', 400),
        ({"Content-Type": "application/json"}, b'{"names": [' + b"9" * 5000 + b"]}", 400),
    ],
)
def test_bodies_that_are_too_much(here: Site, headers: dict[str, str], body: bytes, status: int) -> None:
    with here.unchanged():
        begun = time.process_time()
        answer = here.ask("POST", "/v1/resolve", "root", body, headers)
        assert answer.status == status
        assert time.process_time() - begun < 3


def test_a_body_that_does_not_end_is_cut_off(here: Site) -> None:
    with here.unchanged():
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        headers = ("Transfer-Encoding: chunked", "Content-Type: application/json")
        with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
            connection.sendall(head(here, "POST /v1/resolve HTTP/1.1", *headers))
            with suppress(OSError):
                for _ in range(100):
                    connection.sendall(chunk)
            with suppress(OSError):  # it was reset while we were sending: it was cut off all the same
                assert b" 413 " in connection.recv(4096)


# Cheap requests that cost much


@pytest.mark.parametrize(
    "value",
    ["bytes=" + ",".join(["0-0"] * 10_000), "bytes=0-0,1-1", "bytes=-", "bytes=5-2", "bytes=999999999999-", "items=0-1",
     "bytes=a-b", "bytes=-0", "bytes=" + "9" * 30 + "-"],
)  # fmt: skip
def test_one_range_at_a_time(here: Site, value: str) -> None:
    digest = here.shelf.show("b/open@1").manifest.files[0].digest
    with here.unchanged():
        begun = time.process_time()
        answer = here.ask("GET", f"/v1/blobs/{digest}", "bob", None, {"Range": value})
        assert answer.status in (416, 200, 400, 431)
        assert answer.status != 200 or Digest.of(answer.body) == digest
        assert time.process_time() - begun < 1


def test_questions_that_match_everything_are_answered_soon(here: Site) -> None:
    with here.unchanged():
        tags = "tag=" + "&tag=".join(["k"] * 50)
        for query in ("text=%25_%25_%25", "text=" + "a" * 200, tags, "metric=acc>=0&metric=f1<1", "sort=acc"):
            begun = time.process_time()
            assert here.ask("GET", f"/v1/adapters?{query}", "root").status == 200
            assert time.process_time() - begun < 1
        for query in (f"{tags}&" * 10, "text=" + "a" * 60_000, "rank=1..1e9", "sort=;drop", "metric=acc>=1e999999"):
            begun = time.process_time()
            assert here.ask("GET", f"/v1/adapters?{query}", "root").status < 500
            assert time.process_time() - begun < 1
        many = {f"k{number}": "v" for number in range(100_000)}
        assert here.ask("PUT", "/v1/adapters/b/open/versions/1/tags", "bob", many).status in (400, 413)


def test_many_slow_clients_do_not_keep_a_good_one_waiting(here: Site) -> None:
    with here.unchanged():
        slow = [socket.create_connection(("127.0.0.1", here.port), timeout=5) for _ in range(200)]
        for connection in slow:
            connection.sendall(b"GET /v1/adapters HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        waits = []
        for _ in range(50):
            begun = time.process_time()
            assert here.ask("GET", "/v1/resolve/b/open", "bob").status == 200
            waits.append(time.process_time() - begun)
        assert sorted(waits)[-3] < 1
        for connection in slow:
            connection.close()
