"""Blobs over HTTP: who may have them, and uploads that lie, break off or meet each other.

Most of it over a real server on loopback, where lengths, cut connections and two requests at once are what they are. Each refusal
also shows that nothing was kept.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier

import pytest

from registry.api.routes import blobs as routes
from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.digest import Digest
from tests.api.served import served
from tests.conftest import WriteAdapter

UNKNOWN = Digest.of(b"nobody has this")
MAX_BLOB = 10_000


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Scene:
    """``secret`` is the weights of team/a, which is private; ``tokens`` by the name of who has it."""

    address: str
    shelf: Registry
    store: Path
    secret: Digest
    tokens: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def ask(
        self, who: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            bearer = {"Authorization": f"Bearer {self.tokens[who]}"}
            connection.request(method, path, body=body, headers={**bearer, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def patch(self, who: str, data: bytes, part: bytes, offset: int, *, length: int | None = None) -> Answer:
        """Send ``part`` of what shall be ``data``."""
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(data) if length is None else length)}
        return self.ask(who, "PATCH", f"/v1/uploads/{Digest.of(data)}", part, headers)

    @contextmanager
    def begun(self, who: str, head: str, body: bytes) -> Iterator[socket.socket]:
        """A request of which the rest has not come yet."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            lines = [head, f"Host: 127.0.0.1:{self.port}", f"Authorization: Bearer {self.tokens[who]}", "", ""]
            connection.sendall("\r\n".join(lines).encode() + body)
            yield connection

    def offset(self, who: str, digest: Digest) -> bytes:
        return self.ask(who, "GET", f"/v1/uploads/{digest}").body

    def kept(self) -> tuple[set[Digest], list[Path]]:
        """Blobs, and files of the server's own."""
        return set(self.shelf.blobs.digests()), [path for path in (self.store / "server").rglob("*") if path.is_file()]


@pytest.fixture
def scene(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Scene]:
    shelf = connect(tmp_path / "registry", namespace="team")
    shelf.push(write_adapter("a"))
    (secret,) = [entry.digest for entry in shelf.show("a").manifest.files if entry.path.endswith(".safetensors")]
    tokens: dict[str, str] = {}
    grants = {
        "owner": ([Action.READ, Action.PUSH], "team/*"),
        "neighbour": ([Action.READ, Action.PUSH], "other/*"),
        "third": ([Action.READ, Action.PUSH], "other/*"),
        "reader": ([Action.READ], "other/*"),
    }
    with shelf.catalog.writing() as writer:
        writer.set_private(shelf.adapter("a"), private=True)
        for name, (actions, pattern) in grants.items():
            tokens[name], token = new_token(name, actions, [NamespacePattern(pattern)], expires_at=None)
            writer.add_token(token)
    store = tmp_path / "registry"
    with served(Settings(store, max_blob=MAX_BLOB, anonymous_read=True)) as address:
        yield Scene(address, shelf, store, secret, tokens)
    assert shelf.doctor(deep=True).problems == ()


@pytest.mark.parametrize("who", ["neighbour", "reader"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}])
def test_what_one_may_not_read_looks_like_what_is_not_there(
    scene: Scene, who: str, method: str, headers: dict[str, str]
) -> None:
    def shown(digest: Digest) -> tuple[int, dict[str, str], bytes]:
        condition = headers or {"If-None-Match": f'"{digest}"'}
        answer = scene.ask(who, method, f"/v1/blobs/{digest}", headers=condition)
        told = {name: text for name, text in answer.headers.items() if name not in ("date", "x-request-id")}
        return answer.status, told, answer.body.replace(digest.encode(), b"DIGEST")

    assert shown(scene.secret) == shown(UNKNOWN)
    assert shown(scene.secret)[0] == 404
    assert scene.ask("owner", method, f"/v1/blobs/{scene.secret}").status == 200


@pytest.mark.parametrize("condition", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_a_blob_that_a_client_has_is_not_sent_again(scene: Scene, condition: str) -> None:
    wanted = {"If-None-Match": condition.format(scene.secret)}
    for method in ("GET", "HEAD"):
        answer = scene.ask("owner", method, f"/v1/blobs/{scene.secret}", headers=wanted)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["x-content-type-options"] == "nosniff"
    other = scene.ask("owner", "GET", f"/v1/blobs/{scene.secret}", headers={"If-None-Match": '"other"'})
    assert other.status == 200


def test_knowing_a_digest_gives_nothing_and_having_the_bytes_does(scene: Scene) -> None:
    """Who sends them all is answered as if they were the first, and may read them from then on. Nobody else may."""
    data = b"".join(scene.shelf.blobs.read(scene.secret))
    asked = b'{"digests": ["' + scene.secret.encode() + b'"]}'
    as_json = {"Content-Type": "application/json"}
    assert scene.secret.encode() in scene.ask("neighbour", "POST", "/v1/blobs/missing", asked, as_json).body
    assert scene.ask("owner", "POST", "/v1/blobs/missing", asked, as_json).body == b'{"missing":[]}'
    assert scene.ask("neighbour", "PUT", f"/v1/blobs/{scene.secret}", b"not these").status == 400
    assert scene.ask("neighbour", "GET", f"/v1/blobs/{scene.secret}").status == 404
    assert scene.ask("neighbour", "PUT", f"/v1/blobs/{scene.secret}", data).status == 201
    assert scene.ask("neighbour", "GET", f"/v1/blobs/{scene.secret}").body == data
    assert scene.ask("neighbour", "PUT", f"/v1/blobs/{scene.secret}", data).status == 200
    assert scene.ask("third", "GET", f"/v1/blobs/{scene.secret}").status == 404


def test_that_one_sent_it_ends_by_the_clock(scene: Scene) -> None:
    assert scene.ask("owner", "PUT", f"/v1/blobs/{Digest.of(b'x')}", b"x").status == 201
    (marker,) = scene.kept()[1]
    os.utime(marker, (0, 0))
    assert scene.ask("owner", "GET", f"/v1/blobs/{Digest.of(b'x')}").status == 404


X = Digest.of(b"xyz")


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        (["Content-Length: 3", "Content-Encoding: gzip"], b"xyz", 415),
        (["Content-Length: 3", "Content-Encoding: identity", "Content-Encoding: GZIP"], b"xyz", 415),
        (["Content-Length: 3", "Content-Type: Multipart/form-data; boundary=b"], b"xyz", 415),
        (["Content-Length: 3"], b"abc", 400),
        ([f"Content-Length: {MAX_BLOB + 1}"], b"", 413),
        ([f"Content-Length: {2**63}"], b"", 413),
        (["Content-Length: -3"], b"xyz", 400),
        (["Content-Length: 3", "Content-Length: 4"], b"xyz!", 400),
        (["Content-Length: 3", "Transfer-Encoding: chunked"], b"4\r\nxyz!\r\n0\r\n\r\n", 400),
        (["Transfer-Encoding: chunked"], b"3\r\nxyz\r\n0\r\n\r\n", 411),
        ([], b"", 411),
    ],
)
@pytest.mark.parametrize("request_line", [f"PUT /v1/blobs/{X}", f"PATCH /v1/uploads/{X}"])
def test_an_upload_that_lies_is_refused(
    scene: Scene, request_line: str, lines: list[str], body: bytes, status: int
) -> None:
    before = scene.kept()
    standing = ["Upload-Offset: 0", f"Upload-Length: {MAX_BLOB + 1 if status == 413 else 3}"]
    head = "\r\n".join([f"{request_line} HTTP/1.1", "Connection: close", *lines])
    if request_line.startswith("PATCH"):
        head = "\r\n".join([head, *standing])
        if lines == [f"Content-Length: {2**63}"]:
            status = 400  # more than the rest of the upload, whatever the limit is
    with scene.begun("owner", head, body) as connection:
        connection.settimeout(20)
        assert connection.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    assert scene.kept() == before


def test_who_may_not_push_may_not_upload(scene: Scene) -> None:
    before = scene.kept()
    assert scene.ask("reader", "PUT", f"/v1/blobs/{X}", b"xyz").status == 403
    assert scene.patch("reader", b"xyz", b"xyz", 0).status == 403
    assert scene.kept() == before


def test_of_one_piece_that_breaks_off_nothing_is_kept(scene: Scene) -> None:
    before = scene.kept()
    with scene.begun("owner", f"PUT /v1/blobs/{X} HTTP/1.1\r\nContent-Length: 3", b"xy") as connection:
        time.sleep(0.2)  # the server has begun to read
        assert scene.kept() == before
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""
    assert scene.kept() == before


def test_an_upload_in_pieces(scene: Scene) -> None:
    first = scene.patch("owner", b"xyz", b"x", 0)
    assert (first.status, first.headers["upload-offset"]) == (202, "1")
    assert (scene.offset("owner", X), scene.offset("neighbour", X)) == (b'{"offset":1}', b'{"offset":0}')
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").status == 404
    for offset in (0, 2):
        wrong = scene.patch("owner", b"xyz", b"y", offset)
        assert (wrong.status, wrong.headers["upload-offset"]) == (409, "1")
    assert scene.patch("owner", b"xyz", b"yz!", 1).status == 400
    assert scene.patch("owner", b"xyz", b"yz", 1).status == 201
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").body == b"xyz"
    assert scene.offset("owner", X) == b'{"offset":0}'


def test_where_an_upload_stands_is_one_place_whatever_it_is_said_to_become(scene: Scene) -> None:
    """Somebody who was wrong about the length goes on, and what arrived counts once."""
    assert scene.patch("owner", b"xyz", b"x", 0, length=300).status == 202
    again = scene.patch("owner", b"xyz", b"xy", 0)
    assert (again.status, again.headers["upload-offset"]) == (409, "1")
    assert scene.patch("owner", b"xyz", b"y", 1, length=MAX_BLOB).status == 202
    assert scene.offset("owner", X) == b'{"offset":2}'
    assert len(scene.kept()[1]) == 1
    assert scene.patch("owner", b"xyz", b"z", 2).status == 201
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").body == b"xyz"


def test_pieces_of_something_else_are_thrown_away(scene: Scene) -> None:
    before = scene.kept()
    assert scene.patch("owner", b"xyz", b"x", 0).status == 202
    assert scene.patch("owner", b"xyz", b"YZ", 1).status == 400
    assert (scene.kept(), scene.offset("owner", X)) == (before, b'{"offset":0}')


def test_two_do_not_write_to_one_upload(scene: Scene) -> None:
    """The second is refused and changes nothing; another caller's upload of the same digest is another one."""
    head = f"PATCH /v1/uploads/{X} HTTP/1.1\r\nUpload-Offset: 0\r\nUpload-Length: 3\r\nContent-Length: 3"
    with scene.begun("owner", head, b"xy") as connection:
        until(lambda: scene.kept()[1] != [])
        refused = scene.patch("owner", b"xyz", b"abc", 0)
        assert (refused.status, b"upload-in-use" in refused.body) == (409, True)
        assert scene.patch("neighbour", b"xyz", b"xyz", 0).status == 201
        connection.sendall(b"z")
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").body == b"xyz"


def test_who_falls_silent_can_go_on_in_another_connection(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose network went away closes nothing; what it had sent is there."""
    monkeypatch.setattr(routes, "_PATIENCE", 0.3)
    head = f"PATCH /v1/uploads/{X} HTTP/1.1\r\nUpload-Offset: 0\r\nUpload-Length: 3\r\nContent-Length: 3"
    with scene.begun("owner", head, b"xy"):
        until(lambda: scene.offset("owner", X) == b'{"offset":2}')
        until(lambda: scene.patch("owner", b"xyz", b"z", 2).status == 201)
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").body == b"xyz"


def test_many_may_send_the_same_in_one_piece_at_once(scene: Scene) -> None:
    """As when several adapters are pushed that share a file; one that hangs stops nobody."""
    gate = Barrier(8)

    def send(_turn: int) -> int:
        gate.wait()
        return scene.ask("owner", "PUT", f"/v1/blobs/{X}", b"xyz").status

    with (
        scene.begun("owner", f"PUT /v1/blobs/{X} HTTP/1.1\r\nContent-Length: 3", b"xy"),
        ThreadPoolExecutor(8) as pool,
    ):
        assert set(pool.map(send, range(8))) <= {200, 201}
    assert scene.ask("owner", "GET", f"/v1/blobs/{X}").body == b"xyz"


def test_what_is_not_finished_ends_by_the_clock(scene: Scene) -> None:
    scene.patch("owner", b"xyz", b"x", 0)
    (staged,) = scene.kept()[1]
    os.utime(staged, (0, 0))
    with served(Settings(scene.store)) as address:  # a server that begins looks for them with its first upload
        again = Scene(address, scene.shelf, scene.store, scene.secret, scene.tokens)
        again.patch("owner", b"other", b"o", 0)
        assert not staged.exists()


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [({"unfinished_uploads": 2}, (429, b"too-many-uploads")), ({"unfinished_bytes": 25}, (413, b"too-large"))],
)
def test_what_one_leaves_unfinished_is_bounded(scene: Scene, settings: dict[str, int], refusal: tuple[int, bytes]) -> None:
    with served(Settings(scene.store, **settings)) as address:  # type: ignore[arg-type]
        here = Scene(address, scene.shelf, scene.store, scene.secret, scene.tokens)
        for data in (b"1", b"2"):
            assert here.patch("owner", data * 10, data, 0).status == 202
        refused = here.patch("owner", b"3" * 10, b"3", 0)
        assert (refused.status, refusal[1] in refused.body) == (refusal[0], True)
        assert here.patch("neighbour", b"3" * 10, b"3", 0).status == 202
        if "unfinished_bytes" in settings:
            longer = here.patch("owner", b"1" * 10, b"1", 1, length=20)
            assert (longer.status, refusal[1] in longer.body) == (refusal[0], True)
        assert here.patch("owner", b"1" * 10, b"1" * 4, 1).status == 202  # one goes on with what has begun
        assert here.patch("owner", b"1" * 10, b"1" * 5, 5).status == 201
        assert here.patch("owner", b"3" * 10, b"3", 0).status == 202


def test_a_collector_takes_unfinished_uploads_after_its_grace_and_none_that_is_written_to(scene: Scene) -> None:
    scene.patch("owner", b"xyz", b"x", 0)
    scene.patch("neighbour", b"abc", b"a", 0)
    xorb = scene.store / "server" / "xet" / "session" / "xorb"
    xorb.parent.mkdir(parents=True)
    xorb.write_bytes(b"x")
    before = scene.kept()
    (begun,) = scene.shelf.blobs.uploads.rglob(f"{X.hex}.*")
    assert scene.shelf.gc(grace=3600).leftovers == ()
    assert len(scene.shelf.gc(grace=0, dry_run=True).leftovers) == 3
    assert scene.kept() == before
    head = f"PATCH /v1/uploads/{X} HTTP/1.1\r\nUpload-Offset: 1\r\nUpload-Length: 3\r\nContent-Length: 2"
    with scene.begun("owner", head, b"y") as connection:
        until(lambda: is_locked(begun))
        assert b"upload-in-use" in scene.patch("owner", b"xyz", b"z", 2).body  # asked before, it might have come first
        assert len(scene.shelf.gc(grace=0).leftovers) == 2
        connection.sendall(b"z")
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert scene.offset("neighbour", Digest.of(b"abc")) == b'{"offset":0}'
    assert not xorb.parent.exists()


def test_an_upload_of_which_nothing_arrived_is_none(scene: Scene) -> None:
    assert scene.patch("owner", b"xyz", b"z", 2).status == 409
    assert scene.kept()[1] == []


def is_locked(path: Path) -> bool:
    """By anybody, without locking it oneself (proc(5), locks)."""
    return any(part.endswith(f":{path.stat().st_ino}") for part in Path("/proc/locks").read_text().split())


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
