"""Blobs on a server, over a real one on loopback; and transfers that break."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.api.settings import Settings
from registry.blobs.remote import RemoteBlobs
from registry.connect import connect
from registry.domain.digest import Digest
from registry.remote.client import Client
from tests.api.served import served
from tests.blobs.contract import BlobStoreContract

LARGE = bytes(range(256)) * 4096 * 20  # 20 MiB: more than one piece


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with connect(tmp_path / "registry").catalog.writing():
        pass
    return tmp_path / "registry"


@pytest.fixture
def address(store: Path) -> Iterator[str]:
    with served(Settings(store)) as address:
        yield address


class TestOverHttp(BlobStoreContract):
    @pytest.fixture
    def blobs(self, address: str) -> RemoteBlobs:
        return RemoteBlobs(Client(address))


def test_an_upload_goes_on_where_it_stood(address: str, store: Path) -> None:
    """The connection breaks in the middle, twice; each byte that arrived is not sent again."""
    digest = Digest.of(LARGE)
    for stop in (5 << 20, 12 << 20):
        cut(address, digest, LARGE, stop)
    RemoteBlobs(Client(address)).put(digest, [LARGE])
    assert b"".join(connect(store).blobs.read(digest)) == LARGE
    assert Client(address).get(f"/v1/uploads/{digest}")["offset"] == 0


def cut(address: str, digest: Digest, data: bytes, stop: int) -> None:
    """Send up to ``stop`` from where the upload stands, then hang up."""
    start = Client(address).get(f"/v1/uploads/{digest}")["offset"]
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"PATCH /v1/uploads/{digest} HTTP/1.1\r\nHost: {host}:{port}\r\nUpload-Offset: {start}\r\n"
            f"Upload-Length: {len(data)}\r\nContent-Length: {len(data) - start}\r\n\r\n".encode()
        )
        connection.sendall(data[start:stop])
        time.sleep(0.5)  # what the server has not read when the connection breaks is lost
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    deadline = time.monotonic() + 10
    while Client(address).get(f"/v1/uploads/{digest}")["offset"] != stop:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_wrong_offset_is_refused_and_says_the_right_one(address: str) -> None:
    digest = Digest.of(LARGE)
    cut(address, digest, LARGE, 1000)
    headers = {"Upload-Offset": "500", "Upload-Length": str(len(LARGE))}
    answer = Client(address)._request("PATCH", f"/v1/uploads/{digest}", b"x", headers)
    assert (answer.status, answer.headers["Upload-Offset"], answer.json()["code"]) == (409, "1000", "wrong-offset")
    assert Client(address).get(f"/v1/uploads/{digest}")["offset"] == 1000


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Encoding": "gzip"}, b"x", 415, "content-encoding"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"x", 415, "content-type"),
        ({}, b"other bytes", 400, "digest-mismatch"),
    ],
)
def test_an_upload_that_lies_is_refused_and_leaves_nothing(
    address: str, store: Path, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    digest = Digest.of(b"x")
    answer = Client(address)._request("PUT", f"/v1/blobs/{digest}", body, headers)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert list(connect(store).blobs.digests()) == []
    assert [path for path in (store / "server").rglob("*") if path.is_file()] == []


def test_an_upload_without_a_length_is_refused(address: str) -> None:
    answer = Client(address)._request("PUT", f"/v1/blobs/{Digest.of(b'x')}", iter([b"x"]), {})
    assert (answer.status, answer.json()["code"]) == (411, "length-required")


def test_a_blob_that_is_too_large_is_refused_before_it_is_sent(store: Path) -> None:
    with served(Settings(store, max_blob=10)) as address:
        answer = Client(address)._request("PUT", f"/v1/blobs/{Digest.of(b'x' * 11)}", b"x" * 11, {})
        assert (answer.status, answer.json()["code"]) == (413, "too-large")


def test_ranges(address: str) -> None:
    digest = Digest.of(b"0123456789")
    client = Client(address)
    RemoteBlobs(client).put(digest, [b"0123456789"])
    for asked, status, data in (
        ("bytes=0-3", 206, b"0123"), ("bytes=-3", 206, b"789"), ("bytes=8-100", 206, b"89"), ("bytes=10-", 416, None),
        ("bytes=0-1,4-5", 416, None), ("bytes=x", 416, None),
    ):  # fmt: skip
        answer = client._request("GET", f"/v1/blobs/{digest}", None, {"Range": asked})
        assert answer.status == status
        if data is not None:
            assert answer.data == data
    assert client._request("GET", f"/v1/blobs/{digest}", None, {"If-None-Match": f'"{digest}"'}).status == 304
