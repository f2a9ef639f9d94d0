"""Where the bytes of a merge go: into a new file; or they are held against a file that an interrupted run finished.

The second computes what the first would write and compares every byte. A digest beside each file would say the same, and
cost every merge that nobody disturbs the reading of all that it wrote; so what is kept is proven by the run that keeps it,
which writes nothing and waits for no disk. A comparison with the sum in float64 allows for an ulp, and would be slower.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.disk import write_at
from registry.weights.streams import Sources, copy_range

_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes that are copied from a file of the base, or of an adapter, to the output."""

    source: Path
    start: int
    count: int
    at: int


class Output(Protocol):
    #: Whether there is use in more bytes.
    is_open: bool

    def put(self, data: memoryview, at: int) -> None:
        """``data`` belongs at byte ``at``. From several threads at once."""

    def copy(self, piece: Range, files: Sources) -> None: ...


class Written:
    """A new file, open for writing."""

    is_open = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def put(self, data: memoryview, at: int) -> None:
        write_at(self._descriptor, data, at)

    def copy(self, piece: Range, files: Sources) -> None:
        source = files.descriptor(piece.source)
        copy_range(source, piece.start, piece.count, self._descriptor, piece.at, where=piece.source)


class Held:
    """A finished file, open for reading: ``is_open`` as long as nothing in it is other than it should be."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_open = True

    def put(self, data: memoryview, at: int) -> None:
        for start in range(0, len(data), _STEP):
            piece = data[start : start + _STEP]
            if self.is_open and self._read(at + start, len(piece)) != piece:
                self.is_open = False

    def copy(self, piece: Range, files: Sources) -> None:
        source = bytearray(min(_STEP, piece.count))
        for start in range(0, piece.count, _STEP):
            if not self.is_open:
                return
            data = memoryview(source)[: min(_STEP, piece.count - start)]
            files.read_into(piece.source, piece.start + start, data)
            self.put(data, piece.at + start)

    def _read(self, start: int, count: int) -> bytearray:
        """Fewer bytes where the file ends before. A bytearray is compared with any buffer in one go, bytes are not."""
        found = bytearray(count)
        filled = 0
        while filled < count and (more := os.preadv(self._descriptor, [memoryview(found)[filled:]], start + filled)):
            filled += more
        return found if filled == count else found[:filled]
