"""One pass over the bytes of a safetensors file: its digest, each tensor's digest, and what its numbers look like.

NaN and infinity are found without numpy: in every floating-point format they are the values whose exponent bits are
all ones (IEEE 754; the FP8 formats of the OCP specification and their FNUZ cousins have their own marks), so one or
two bytes of each element, taken out with a stride, tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry.domain.digest import Digest
from registry.domain.tensors import TensorSpec

#: Bytes per step; a multiple of every element size, so no element is cut.
STEP = 1 << 20
_ZEROS = bytes(STEP)


@dataclass(frozen=True, slots=True)
class Scan:
    """``identity`` depends on names, dtypes, shapes and bytes of the tensors only: not on their order in the file, not on
    header metadata. ``nonfinite`` and ``zero`` are names of tensors with a NaN or infinity, and with nothing but zeros."""

    identity: Digest
    nonfinite: tuple[str, ...]
    zero: tuple[str, ...]


def scan(read: Callable[[int], bytes], tensors: Sequence[TensorSpec]) -> Scan:
    """``read(n)`` gives the next ``n`` bytes, from the first tensor's on; ``tensors`` are contiguous, as the strict header
    reader makes sure."""
    rows, nonfinite, zero = [], [], []
    for tensor in tensors:
        hasher = hashlib.sha256()
        has_nonfinite = _TESTS.get(tensor.dtype, _never)
        finite, blank, left = True, True, tensor.bytes
        while left:
            piece = read(min(STEP, left))
            if not piece:
                raise EOFError(tensor.name)
            left -= len(piece)
            hasher.update(piece)
            finite = finite and not has_nonfinite(piece)
            blank = blank and _is_zero(piece, tensor.dtype)
        rows.append([tensor.name, tensor.dtype, list(tensor.shape), hasher.hexdigest()])
        if not finite:
            nonfinite.append(tensor.name)
        if blank and tensor.bytes:
            zero.append(tensor.name)
    listing = json.dumps(sorted(rows), separators=(",", ":")).encode("ascii")
    return Scan(Digest.of(listing), tuple(nonfinite), tuple(zero))


#: Bytes of a number whose top bit is its sign, so that it can be a negative zero.
_SIGNED = {"F64": 8, "F32": 4, "C64": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1}


def _is_zero(piece: bytes, dtype: str) -> bool:
    """Nothing but zeros, 0.0 or −0.0."""
    if _ZEROS.startswith(piece):
        return True
    size = _SIGNED.get(dtype, 0)
    if not size or piece.strip(b"\0\x80"):
        return False
    return all(_ZEROS.startswith(piece[place::size]) for place in range(size - 1))


def _mask(holds: Callable[[int], bool]) -> bytes:
    """A translation table: 1 for the bytes of which ``holds`` is true, 0 for the others."""
    return bytes(int(holds(byte)) for byte in range(256))


_EXPONENT_7 = _mask(lambda byte: byte & 0x7F == 0x7F)
_TOP_BIT = _mask(lambda byte: bool(byte & 0x80))
_TOP_FOUR = _mask(lambda byte: byte & 0xF0 == 0xF0)
_EXPONENT_5 = _mask(lambda byte: byte & 0x7C == 0x7C)


def _never(piece: bytes) -> bool:
    return False


def _two_bytes(high: int, low: int, size: int, low_mask: bytes) -> Callable[[bytes], bool]:
    def test(piece: bytes) -> bool:
        top = piece[high::size]
        if b"\x7f" not in top and b"\xff" not in top:
            return False
        marks = int.from_bytes(top.translate(_EXPONENT_7), "little")
        return marks & int.from_bytes(piece[low::size].translate(low_mask), "little") != 0

    return test


#: By dtype: does a piece, a whole number of elements in little-endian order, hold a NaN or an infinity?
_TESTS: dict[str, Callable[[bytes], bool]] = {
    "F64": _two_bytes(7, 6, 8, _TOP_FOUR),
    "F32": _two_bytes(3, 2, 4, _TOP_BIT),
    "C64": _two_bytes(3, 2, 4, _TOP_BIT),
    "BF16": _two_bytes(1, 0, 2, _TOP_BIT),
    "F16": lambda piece: 1 in piece[1::2].translate(_EXPONENT_5),
    "F8_E5M2": lambda piece: 1 in piece.translate(_EXPONENT_5),
    "F8_E4M3": lambda piece: b"\x7f" in piece or b"\xff" in piece,
    "F8_E8M0": lambda piece: b"\xff" in piece,
    "F8_E4M3FNUZ": lambda piece: b"\x80" in piece,
    "F8_E5M2FNUZ": lambda piece: b"\x80" in piece,
}
