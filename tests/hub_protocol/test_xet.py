"""What no honest client of Xet sends."""

from __future__ import annotations

import hashlib
import struct
import time
from pathlib import Path

import pytest

from registry.api.hub_protocol import xet
from tests.formats.test_xet import chunk, shard
from tests.hub_protocol.in_process import Hub, hub

DATA = b"some bytes of a file " * 5000
PIECES = [DATA[at : at + 40_000] for at in range(0, len(DATA), 40_000)]
XORB = b"".join(chunk(piece) for piece in PIECES)
HASH = hashlib.sha256(b"whatever").digest()
TEXT = "".join(f"{number:016x}" for number in struct.unpack("<4Q", HASH))
SHARD = shard((hashlib.sha256(DATA).digest(), [(HASH, len(DATA), 0, len(PIECES))]))


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store", max_blob=1 << 20)
    found.create("team/x")
    return found


class Upload:
    def __init__(self, here: Hub, repository: str = "team/x", who: str = "writer") -> None:
        self.here = here
        found = here.get(f"/api/models/{repository}/xet-write-token/main", who=who)
        self.place = found["casUrl"].removeprefix("http://localhost")
        self.token = found["accessToken"]

    def post(self, path: str, body: bytes, token: str | None = None) -> int:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return self.here.ask("POST", f"{self.place}{path}", who=None, headers=headers, content=body).status_code

    def xorb(self, body: bytes = XORB, token: str | None = None) -> int:
        return self.post(f"/v1/xorbs/default/{TEXT}", body, token)

    def shard(self, body: bytes = SHARD, token: str | None = None) -> int:
        return self.post("/v1/shards", body, token)


def digests(here: Hub) -> set[str]:
    return set(here.registry.blobs.digests())


def test_a_file_is_put_together(here: Hub) -> None:
    upload = Upload(here)
    assert upload.xorb() == 200
    assert upload.shard() == 200
    assert f"sha256:{hashlib.sha256(DATA).hexdigest()}" in digests(here)
    assert upload.shard() == 200


def test_a_file_that_a_shard_names_several_times_is_put_together_once(
    here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(xet, "take", lambda digest, *_: taken.append(digest))
    upload = Upload(here)
    assert upload.xorb() == 200
    one = (hashlib.sha256(DATA).digest(), [(HASH, len(DATA), 0, len(PIECES))])
    none: tuple[bytes, list[tuple[bytes, int, int, int]]] = (hashlib.sha256(b"").digest(), [])
    assert upload.shard(shard(*[one] * 3, *[none] * 1000)) == 200
    assert sorted(taken) == sorted(f"sha256:{digest.hex()}" for digest, _ in (one, none))


@pytest.mark.parametrize(
    "body",
    [
        shard((hashlib.sha256(b"other").digest(), [(HASH, len(DATA), 0, len(PIECES))])),
        shard((hashlib.sha256(DATA).digest(), [(bytes(32), len(DATA), 0, len(PIECES))])),
        shard((hashlib.sha256(DATA).digest(), [(HASH, len(DATA), 0, len(PIECES) + 1)])),
        shard((hashlib.sha256(DATA).digest(), [(HASH, len(DATA) - 1, 0, len(PIECES))])),
        shard((hashlib.sha256(DATA).digest(), [(HASH, len(DATA), 0, len(PIECES))] * 20)),
        SHARD[:-60],
        b"no shard",
    ],
)
def test_a_shard_that_is_wrong_makes_no_blob(here: Hub, body: bytes) -> None:
    upload = Upload(here)
    before = digests(here)
    assert upload.xorb() == 200
    assert 400 <= upload.shard(body) < 500
    assert digests(here) == before


def test_xorbs_that_are_wrong_are_not_kept(here: Hub) -> None:
    upload = Upload(here)
    for body in (XORB[:-1], chunk(b"x", 9), chunk(b"x" * 200_000), b"\0" * 20):
        assert upload.xorb(body) == 400
    assert upload.shard() == 400
    assert upload.post("/v1/xorbs/default/..%2f..%2fx", XORB) == 400


def test_nothing_of_an_upload_is_there_for_another(here: Hub) -> None:
    """Neither for the next upload, nor for another who learns the address."""
    first = Upload(here)
    assert first.xorb() == 200
    assert Upload(here).shard() == 400
    assert here.ask("POST", "/api/repos/create", who="other", json={"organization": "other", "name": "y"}).status_code == 200
    thief = Upload(here, "other/y", "other")
    assert first.shard(token=thief.token) == 400
    assert first.shard() == 200


def test_a_token_is_for_one_thing_and_ends(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Upload(here)
    assert upload.xorb(token="adr_nothing") == 401
    assert upload.xorb(token=here.tokens["writer"]) == 401
    assert upload.xorb(token=upload.token[:-4] + "AAAA") == 401
    later = time.time() + xet.XET_LIFETIME + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert upload.xorb() == 401
