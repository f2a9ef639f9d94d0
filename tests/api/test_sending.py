"""What is sent of a blob is the blob, whether it was in memory or a thread had to wait for the disk."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api import sending
from registry.blobs.filesystem import FilesystemBlobs
from registry.domain.digest import Digest
from registry.errors import MissingBlobError

DATA = bytes(range(256)) * 5


@pytest.mark.parametrize("at_hand", [True, False])
@given(bounds=st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(sorted), chunk=st.integers(1, 700))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_part_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_hand: bool, bounds: list[int], chunk: int
) -> None:
    blobs = FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")
    digest = Digest.of(DATA)
    blobs.put(digest, [DATA])
    monkeypatch.setattr(sending, "_CHUNK", chunk)
    if not at_hand:
        monkeypatch.setattr(sending, "_AT_HAND", None)

    async def whole() -> bytes:
        return b"".join([part async for part in sending.sent(digest, *bounds, blobs)])

    assert anyio.run(whole) == DATA[bounds[0] : bounds[1]]


def test_a_missing_blob_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    blobs = FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")
    with pytest.raises(MissingBlobError):
        sending.sent(Digest.of(b"none"), 0, 1, blobs)
