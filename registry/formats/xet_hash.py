"""How Xet writes 32 bytes as text: as four little-endian numbers, each in hexadecimal."""

from __future__ import annotations

import struct


def hash_text(data: bytes) -> str:
    """64 hexadecimal digits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))
