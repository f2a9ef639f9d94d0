"""The order that survives a power loss, checked on a trace of calls.

1. A file is renamed into place only after an fsync that came after its last write.
2. When the catalog commits, no byte and no name below ``blobs`` and ``journal`` is unsynced.
3. When the command acknowledges, nothing at all is.
4. An fsync that failed is never followed by an acknowledgement: a second one would lie (fsyncgate).

What is in ``staging`` or ends in ``.tmp`` need not survive, nor need the catalog's reserve: the next transaction makes it
again. A file that SQLite creates gets its name synced with that of its rollback journal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from tests.faults.shim import Call


def names(registry: Path) -> set[str]:
    """Everything that is there by name."""
    return {str(path) for path in registry.rglob("*")} | ({str(registry)} if registry.exists() else set())


class Disk:
    """What of a registry would be lost with the power."""

    def __init__(self, registry: Path, existing: AbstractSet[str]) -> None:
        self._root = str(registry)
        self._names = set(existing)
        self._bytes: set[str] = set()
        self._entries: dict[str, set[str]] = {}
        self._failed: list[str] = []

    def violations(self, calls: Iterable[Call]) -> Iterator[str]:
        for call in calls:
            if call.name == "acknowledged":
                yield from (f"acknowledged before {what}" for what in self._unsynced(""))
                yield from (f"acknowledged after a failed sync of {path}" for path in self._failed)
            elif call.result < 0 or not (self._ours(call.path) or self._ours(call.second)):
                if call.name == "sync" and self._ours(call.path) and call.result != -signal.SIGKILL:
                    self._failed.append(call.path)
            else:
                yield from self._happen(call)

    def _happen(self, call: Call) -> Iterator[str]:
        if call.name in ("write", "truncate"):
            self._bytes.add(call.path)
        elif call.name in ("create", "mkdir"):
            if call.path not in self._names:
                self._enter(call.path)
        elif call.name == "sync":
            self._bytes.discard(call.path)
            self._entries.pop(call.path, None)
        elif call.name == "unlink":
            self._leave(call.path)
        elif call.name == "rename":
            if call.path in self._bytes:
                yield f"{call.second} was renamed into place before its bytes were synced"
                self._bytes.add(call.second)
            self._leave(call.path)
            self._enter(call.second)
        if _commits(call):
            for room in ("blobs", "journal"):
                yield from (f"the catalog committed before {what}" for what in self._unsynced(f"/{room}"))

    def _unsynced(self, room: str) -> Iterator[str]:
        for path in sorted(self._bytes):
            if path.startswith(self._root + room) and not self._temporary(path):
                yield f"the bytes of {path} were synced"
        for directory, entries in sorted(self._entries.items()):
            for path in sorted(entries):
                if path.startswith(self._root + room) and not self._temporary(path):
                    yield f"the name {path} was synced, in {directory}"

    def _temporary(self, path: str) -> bool:
        return path.startswith(f"{self._root}/staging/") or path.endswith((".tmp", "/catalog.db.reserve"))

    def _enter(self, path: str) -> None:
        self._names.add(path)
        self._entries.setdefault(os.path.dirname(path), set()).add(path)

    def _leave(self, path: str) -> None:
        self._names.discard(path)
        self._bytes.discard(path)
        self._entries.get(os.path.dirname(path), set()).discard(path)

    def _ours(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + "/") or path == os.path.dirname(self._root)


def _commits(call: Call) -> bool:
    """A rollback journal that is emptied or removed, a write-ahead log that is synced."""
    if call.path.endswith("catalog.db-journal"):
        return call.name in ("truncate", "unlink")
    return call.path.endswith("catalog.db-wal") and call.name == "sync"
