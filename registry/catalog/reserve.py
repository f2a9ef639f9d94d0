"""Room that a catalog keeps for itself.

On a full disk SQLite cannot be written to, not even that something goes: nothing could be deleted and collected to make room.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.disk import write_all

#: Bytes: the files beside a database in WAL mode, and some dozen small transactions with their segments of the journal.
SIZE = 1 << 18
#: What is not worth a file.
_LEAST = 1 << 14


class Reserve:
    """A file of zeros beside the catalog, which is given up for as long as a transaction of a full disk takes."""

    def __init__(self, catalog: Path) -> None:
        self._catalog = catalog
        self._path = catalog.with_name(f"{catalog.name}.reserve")

    @contextmanager
    def spent(self) -> Iterator[None]:
        """What is written in this block finds the room, if there is no other."""
        with suppress(OSError):
            if _free(self._path.parent) < SIZE:
                self._path.unlink(missing_ok=True)
        try:
            yield
        finally:
            self._keep()

    def _keep(self) -> None:
        """As much as there is, and what was written of that. Nothing hangs on it before the disk is full."""
        with suppress(OSError):
            if not self._catalog.exists():
                return
            free = _free(self._path.parent)
            kept = self._path.stat().st_size if self._path.exists() else 0
            if kept == 0 or (kept < SIZE and free > 2 * SIZE):
                self._take(min(SIZE, free))

    def _take(self, size: int) -> None:
        if size >= _LEAST:
            with open(self._path, "wb", buffering=0) as file:
                write_all(file.fileno(), bytes(size))


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free
