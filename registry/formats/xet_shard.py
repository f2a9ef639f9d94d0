"""Shards of the Xet protocol: of which chunks of which xorbs a file consists, and what its SHA-256 is.

48-byte records behind a header, little-endian. https://huggingface.co/docs/xet/shard
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from registry.domain.digest import Digest
from registry.errors import MalformedFileError
from registry.formats.xet_hash import hash_text

_TAG = b"HFRepoMetaData"
_HEADER, _RECORD = 48, 48
_VERSION = 2
_END = b"\xff" * 32
_WITH_VERIFICATION, _WITH_METADATA = 1 << 31, 1 << 30


@dataclass(frozen=True, slots=True)
class Segment:
    """Chunks ``start`` to ``end``, the latter not included, of the xorb with this hash; ``size`` bytes in all."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ShardFile:
    digest: Digest
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


def read_shard(data: bytes) -> Iterator[ShardFile]:
    """Raises MalformedFileError."""
    if not data.startswith(_TAG) or len(data) < _HEADER:
        raise _malformed("does not begin as one")
    (version,) = struct.unpack_from("<Q", data, 32)
    if version != _VERSION:
        raise _malformed(f"has version {version}, expected {_VERSION}")
    at = _HEADER
    while True:
        record = _record(data, at)
        at += _RECORD
        if record[:32] == _END:
            return
        flags, count = struct.unpack_from("<II", record, 32)
        if count * _RECORD > len(data) - at:
            raise _malformed("is cut off in the segments of a file")
        segments = tuple(_segment(_record(data, at + _RECORD * number)) for number in range(count))
        at += _RECORD * count * (2 if flags & _WITH_VERIFICATION else 1)
        if not flags & _WITH_METADATA:
            raise _malformed("names a file without its SHA-256")
        yield ShardFile(Digest.of_hex(hash_text(_record(data, at)[:32])), segments)
        at += _RECORD


def _segment(record: bytes) -> Segment:
    _flags, size, start, end = struct.unpack_from("<IIII", record, 32)
    if end <= start:
        raise _malformed("has a segment without chunks")
    return Segment(hash_text(record[:32]), size, start, end)


def _record(data: bytes, at: int) -> bytes:
    record = data[at : at + _RECORD]
    if len(record) != _RECORD:
        raise _malformed("is cut off")
    return record


def _malformed(problem: str) -> MalformedFileError:
    return MalformedFileError("the shard", problem, code="malformed-shard")
