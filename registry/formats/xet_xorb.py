"""Xorbs of the Xet protocol: chunks of files, one behind the other, each compressed by itself.

A chunk is ``version u8 | compressed length u24 | scheme u8 | length u24 | data``, little-endian; behind the last there may be a
footer that begins with ``XETBLOB``. https://huggingface.co/docs/xet/xorb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from registry.errors import MalformedFileError
from registry.formats.lz4_frame import decompress

#: Bytes of a chunk, and of all chunks of a xorb, uncompressed; and how many there are.
MAX_CHUNK = 128 << 10
MAX_XORB = 128 << 20
MAX_CHUNKS = 64 << 10
_HEADER = 8
_FOOTER = b"XETBLOB"
_PLAIN, _LZ4, _PLANES = 0, 1, 2


def read_chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """``read(n)`` gives n bytes, fewer only at the end. Raises MalformedFileError."""
    count = total = 0
    while header := read(_HEADER):
        if header.startswith(_FOOTER):
            return
        if len(header) < _HEADER:
            raise _malformed("is cut off in the header of a chunk")
        if header[0] != 0:
            raise _malformed(f"has a chunk of version {header[0]}, expected 0")
        packed, scheme = int.from_bytes(header[1:4], "little"), header[4]
        size = int.from_bytes(header[5:8], "little")
        count, total = count + 1, total + size
        if size > MAX_CHUNK or packed > 2 * MAX_CHUNK:
            raise _malformed(f"has a chunk of {max(size, packed):,} bytes, at most {MAX_CHUNK:,} are one")
        if count > MAX_CHUNKS or total > MAX_XORB:
            raise _malformed("has more chunks than a xorb can")
        data = read(packed)
        if len(data) != packed:
            raise _malformed("is cut off in a chunk")
        yield _unpacked(data, scheme, size)


def _unpacked(data: bytes, scheme: int, size: int) -> bytes:
    if scheme == _PLAIN:
        if len(data) != size:
            raise _malformed(f"has a plain chunk of {len(data):,} bytes that says it has {size:,}")
        return data
    if scheme == _LZ4:
        return decompress(data, size=size)
    if scheme == _PLANES:
        return _interleaved(decompress(data, size=size))
    raise _malformed(f"has a chunk of scheme {scheme}, which is not known")


def _interleaved(planes: bytes) -> bytes:
    """Byte k of every group of four comes from plane k. Where the length is no multiple of four, the first planes are longer."""
    size = len(planes)
    out = bytearray(size)
    start = 0
    for plane in range(4):
        length = (size - plane + 3) // 4
        out[plane::4] = planes[start : start + length]
        start += length
    return bytes(out)


def _malformed(problem: str) -> MalformedFileError:
    return MalformedFileError("the xorb", problem, code="malformed-xorb")
