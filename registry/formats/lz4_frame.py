"""LZ4 frames, decompressed.

https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md. The ``lz4`` package does it if it is
installed, some ten times as fast; what is written here in Python does it otherwise. Checksums are passed over: whoever asks has a
stronger one.
"""

from __future__ import annotations

from collections.abc import Callable

from registry.errors import MalformedFileError

_MAGIC = 0x184D2204
_MIN_MATCH = 4
_UNCOMPRESSED = 1 << 31


def decompress(frame: bytes, *, size: int) -> bytes:
    """``size`` is how many bytes must come out, so that a bomb is known before it is large. Raises MalformedFileError."""
    data = _decompress(frame, size)
    if len(data) != size:
        raise malformed(f"decompresses to {len(data):,} bytes or more, expected {size:,}")
    return data


def malformed(problem: str) -> MalformedFileError:
    return MalformedFileError("an LZ4 frame", problem, code="malformed-lz4")


def decompress_in_python(frame: bytes, size: int) -> bytes:
    """Stops when more than ``size`` bytes have come out."""
    try:
        if int.from_bytes(frame[:4], "little") != _MAGIC:
            raise malformed("does not begin as one")
        flags = frame[4]
        if flags >> 6 != 1 or flags & 1:
            raise malformed("has a version or a dictionary that is not known")
        at = 7 + (8 if flags & 8 else 0)
        out = bytearray()
        while length := int.from_bytes(_exactly(frame, at, 4), "little"):
            at += 4
            plain, length = length & _UNCOMPRESSED, length & ~_UNCOMPRESSED
            block = _exactly(frame, at, length)
            if plain:
                out += block
            else:
                _block(block, out, size)
            if len(out) > size:
                return bytes(out)
            at += length + (4 if flags & 16 else 0)
        return bytes(out)
    except IndexError:
        raise malformed("is cut off") from None


def _block(block: bytes, out: bytearray, size: int) -> None:
    """Append what a block holds. Matches may reach into the blocks before."""
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            literals, at = _longer(block, at, literals)
        out += _exactly(block, at, literals)
        at += literals
        if at >= end:
            return  # the last sequence has literals alone
        offset = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            length, at = _longer(block, at, length)
        length += _MIN_MATCH
        start = len(out) - offset
        if offset == 0 or start < 0:
            raise malformed("refers to what is before its beginning")
        if len(out) + length > size:
            out += bytes(max(1, size + 1 - len(out)))  # too much, whatever it is
            return
        if offset >= length:
            out += out[start : start + length]
        else:
            piece = bytes(out[start:])
            out += (piece * (length // offset + 1))[:length]


def _longer(block: bytes, at: int, length: int) -> tuple[int, int]:
    while True:
        more = block[at]
        at += 1
        length += more
        if more != 255:
            return length, at


def _exactly(data: bytes, start: int, length: int) -> bytes:
    found = data[start : start + length]
    if len(found) != length:
        raise IndexError(start)
    return found


def _installed() -> Callable[[bytes, int], bytes] | None:
    try:
        import lz4.frame
    except ImportError:
        return None

    def with_library(frame: bytes, size: int) -> bytes:
        try:
            data: bytes = lz4.frame.LZ4FrameDecompressor().decompress(frame, max_length=size + 1)
        except (RuntimeError, EOFError) as error:
            raise malformed(f"cannot be read: {error}") from None
        return data

    return with_library


_decompress = _installed() or decompress_in_python
