"""What a client said it would upload, so that an upload in several commits becomes one version.

Clients ask about up to 256 files at once, and then commit them in one go or, if they are many, in parts. Which files will come
is known from the asking alone. So the adapter's files that were announced, and that cannot be what is here already, are written
down in a file for each actor and adapter: the parts may reach different workers, and a commit on record cannot tell what is
missing. Nothing but names is kept, for as long as an upload may take.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.blobs.filesystem import unavailable

#: Seconds. An upload that pauses for longer than this has ended.
LIFETIME = 600.0
_MOST = 16


@dataclass(frozen=True, slots=True)
class _Row:
    at: float
    left: list[str]
    begun: bool = False


class Announcements:
    """A row of the file is one asking: when it was last heard of, the paths that are still to come, and whether others of it came
    already. What is read may be older than what another worker writes at the same moment; then an upload that reaches two
    workers at once becomes two versions."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def add(self, actor: str, adapter: str, paths: Iterable[str]) -> None:
        """One asking. It takes the place of earlier ones about the same files: those are an attempt that was given up."""
        fresh = sorted(set(paths))
        if fresh:
            others = [row for row in self._read(actor, adapter) if not set(row.left) & set(fresh)]
            self._write(actor, adapter, [*others[-_MOST:], _Row(time.time(), fresh)])

    def all_of(self, actor: str, adapter: str) -> set[str]:
        """Everything that is still to come."""
        return {path for row in self._read(actor, adapter) for path in row.left}

    def are_awaited(self, actor: str, adapter: str, brought: Iterable[str]) -> bool:
        """Whether these are what an upload still lacks that has begun."""
        found = set(brought)
        return any(row.begun and set(row.left) & found for row in self._read(actor, adapter))

    def outstanding(self, actor: str, adapter: str, brought: Iterable[str]) -> set[str]:
        """Announced together with some of the files that a commit brings, and still missing after it."""
        found = set(brought)
        together = [set(row.left) for row in self._read(actor, adapter) if set(row.left) & found]
        return set().union(*together) - found

    def remove(self, actor: str, adapter: str, brought: Iterable[str]) -> None:
        """They came."""
        found = set(brought)
        rows = []
        for row in self._read(actor, adapter):
            left = sorted(set(row.left) - found)
            touched = len(left) < len(row.left)
            if left:
                rows.append(_Row(time.time() if touched else row.at, left, row.begun or touched))
        self._write(actor, adapter, rows)

    def sweep(self) -> None:
        """Remove those of uploads that have ended."""
        with suppress(OSError):
            for path in self._place.iterdir():
                if path.stat().st_mtime < time.time() - LIFETIME:
                    path.unlink(missing_ok=True)

    def _read(self, actor: str, adapter: str) -> list[_Row]:
        try:
            rows = [_Row(*row) for row in json.loads(self._path(actor, adapter).read_bytes())]
        except (OSError, ValueError, TypeError):  # none, or half a file after a crash: nothing is known then
            return []
        return [row for row in rows if row.at > time.time() - LIFETIME]

    def _write(self, actor: str, adapter: str, rows: list[_Row]) -> None:
        path = self._path(actor, adapter)
        try:
            if not rows:
                path.unlink(missing_ok=True)
                return
            self._place.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
            draft.write_text(json.dumps([[row.at, row.left, row.begun] for row in rows]))
            os.replace(draft, path)
        except OSError as error:
            raise unavailable(error, "note an upload", path) from error

    def _path(self, actor: str, adapter: str) -> Path:
        return self._place / hashlib.sha256(f"{actor}\n{adapter}".encode()).hexdigest()
