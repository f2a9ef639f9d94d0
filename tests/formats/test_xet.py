"""LZ4 frames, xorbs and shards: what the reference implementations write is read, and what nobody should send is refused."""

from __future__ import annotations

import hashlib
import io
import struct

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import MalformedFileError
from registry.formats.lz4_frame import decompress, decompress_in_python
from registry.formats.xet_hash import hash_text
from registry.formats.xet_shard import Segment, read_shard
from registry.formats.xet_xorb import MAX_CHUNK, read_chunks

SIZES = [0, 1, 3, 4, 5, 63, 64, 65, 70_000, MAX_CHUNK]
texts = st.binary(max_size=300).map(lambda piece: piece * 7) | st.binary(max_size=2000)


def permuted(digest: bytes) -> bytes:
    """The bytes whose Xet text is the hexadecimal text of these."""
    return struct.pack("<4Q", *struct.unpack(">4Q", digest))


def chunk(data: bytes, scheme: int = 0, *, version: int = 0, size: int | None = None) -> bytes:
    header = bytes([version]) + len(data).to_bytes(3, "little") + bytes([scheme])
    return header + (len(data) if size is None else size).to_bytes(3, "little") + data


def planes(data: bytes) -> bytes:
    return b"".join(data[plane::4] for plane in range(4))


def shard(*files: tuple[bytes, list[tuple[bytes, int, int, int]]], verified: bool = False, digest: bool = True) -> bytes:
    body = b"HFRepoMetaData".ljust(32, b"\0") + struct.pack("<QQ", 2, 0)
    flags = (1 << 31 if verified else 0) | (1 << 30 if digest else 0)
    for sha256, segments in files:
        body += bytes(32) + struct.pack("<IIQ", flags, len(segments), 0)
        body += b"".join(xorb + struct.pack("<IIII", 0, size, start, end) for xorb, size, start, end in segments)
        body += bytes(48) * len(segments) if verified else b""
        body += permuted(sha256) + bytes(16) if digest else b""
    return body + b"\xff" * 32 + bytes(16)


@given(texts, st.booleans(), st.sampled_from([0, 3]), st.booleans())
def test_what_lz4_compresses_is_decompressed(data: bytes, linked: bool, level: int, sized: bool) -> None:
    frame = lz4.frame.compress(data, compression_level=level, block_linked=linked, store_size=sized, content_checksum=linked)
    assert decompress_in_python(frame, len(data)) == data
    assert decompress(frame, size=len(data)) == data


def test_large_and_repetitive_frames_are_decompressed() -> None:
    for data in (b"ab" * 400_000, bytes(range(256)) * 5_000, b"\0" * 1_000_000):
        frame = lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=True)
        assert decompress_in_python(frame, len(data)) == data


def test_a_bomb_stops_where_it_is_too_large() -> None:
    frame = lz4.frame.compress(b"\0" * 50_000_000)
    for size in (10, 1000):
        assert len(decompress_in_python(frame, size)) == size + 1
        with pytest.raises(MalformedFileError):
            decompress(frame, size=size)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_broken_frames_are_refused(noise: bytes, size: int) -> None:
    frame = lz4.frame.compress(b"some text, some text, some text")
    for broken in (noise, frame[:7] + noise, frame[: len(frame) // 2], frame[:11] + noise + frame[11:]):
        try:
            decompress_in_python(broken, size)
        except MalformedFileError as error:
            assert error.code == "malformed-lz4"


@pytest.mark.parametrize("size", SIZES)
def test_chunks_of_every_scheme_are_read(size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    xorb = (
        chunk(data)
        + chunk(lz4.frame.compress(data), 1, size=size)
        + chunk(lz4.frame.compress(planes(data)), 2, size=size)
    )
    for footer in (b"", b"XETBLOB and whatever follows"):
        assert list(read_chunks(io.BytesIO(xorb + footer).read)) == [data] * 3


@pytest.mark.parametrize(
    "xorb",
    [
        chunk(b"abc", version=1),
        chunk(b"abc", 3),
        chunk(b"abc", size=4),
        chunk(b"abc")[:-1],
        chunk(b"abc")[:5],
        chunk(b"abc", size=MAX_CHUNK + 1),
        chunk(lz4.frame.compress(b"abc"), 1, size=2),
        chunk(lz4.frame.compress(b"abc"), 1, size=4),
        chunk(b"no frame", 2, size=4),
        chunk(lz4.frame.compress(b"\0" * MAX_CHUNK), 1, size=MAX_CHUNK) * 1025,
    ],
)
def test_what_no_client_sends_is_refused(xorb: bytes) -> None:
    with pytest.raises(MalformedFileError):
        list(read_chunks(io.BytesIO(xorb).read))


@pytest.mark.parametrize("verified", [False, True])
def test_a_shard_names_files_by_their_sha256(verified: bool) -> None:
    xorb = hashlib.sha256(b"xorb").digest()
    first, second = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    data = shard((first, [(xorb, 10, 0, 2), (xorb, 5, 3, 4)]), (second, [(xorb, 7, 1, 2)]), verified=verified)
    files = list(read_shard(data))
    assert [file.digest.hex for file in files] == [first.hex(), second.hex()]
    assert files[0].size == 15
    assert files[0].segments[0] == Segment(hash_text(xorb), 10, 0, 2)
    for cut in range(len(data) - 48):
        with pytest.raises(MalformedFileError):
            list(read_shard(data[:cut]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HFRepoMetaData".ljust(32, b"\0") + struct.pack("<QQ", 3, 0),
        shard((bytes(32), [(bytes(32), 1, 0, 1)]), digest=False),
        shard((bytes(32), [(bytes(32), 1, 2, 2)])),
        b"HFRepoMetaData".ljust(32, b"\0") + struct.pack("<QQ", 2, 0) + bytes(32) + struct.pack("<IIQ", 1 << 30, 1 << 31, 0),
    ],
)
def test_shards_that_say_nothing_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedFileError):
        list(read_shard(data))
