"""Clients that go away in the middle, or lie about how much they send."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from registry.connect import connect
from tests.hub_protocol.running import Server, serving

pytestmark = pytest.mark.slow
DATA = bytes(range(256)) * 8192
OID = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "store") as found:
        ask(found, "POST", "/api/repos/create", {"name": "x", "organization": "team"})
        yield found


def ask(server: Server, method: str, path: str, body: object) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=30)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Authorization": f"Bearer {server.tokens['writer']}"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content else None


def upload_address(server: Server) -> str:
    wanted = {"operation": "upload", "objects": [{"oid": OID, "size": len(DATA)}]}
    _, answer = ask(server, "POST", "/team/x.git/info/lfs/objects/batch", wanted)
    return str(answer["objects"][0]["actions"]["upload"]["href"]).removeprefix(server.address)


def quiet(server: Server) -> bool:
    """Whether nothing unfinished is left, soon."""
    deadline = time.monotonic() + 10
    while any((server.store / "staging").glob("*")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_an_upload_that_breaks_off_leaves_nothing(server: Server, share: float, reset: bool) -> None:
    address = urlsplit(server.address)
    path = upload_address(server)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        connection.sendall(head.encode() + DATA[: int(len(DATA) * share)])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.2)
    assert quiet(server)
    assert f"sha256:{OID}" not in set(connect(server.store).blobs.digests())
    assert ask(server, "PUT", upload_address(server), DATA)[0] == 200
    assert ask(server, "POST", "/team/x.git/info/lfs/objects/verify", {"oid": OID, "size": len(DATA)})[0] == 200


def test_a_commit_that_breaks_off_is_none(server: Server) -> None:
    address = urlsplit(server.address)
    body = b'{"key":"header","value":{"summary":"half"}}\n{"key":"file","value":{"path":"a.txt","content":"YQ=="}}\n'
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = (
            f"POST /api/models/team/x/commit/main HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: Bearer {server.tokens['writer']}\r\nContent-Length: {len(body) + 10}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
    time.sleep(0.3)
    registry = connect(server.store, namespace="team")
    assert registry.catalog.commits(registry.adapter("x")) == []
    assert ask(server, "POST", "/api/models/team/x/commit/main", body)[0] == 200
    assert len(registry.catalog.commits(registry.adapter("x"))) == 1
    assert "Traceback" not in (server.store / "stderr").read_text()
