"""The journal: the audit once more, as files beside the blobs, so that a lost catalog can be made again.

A segment is written before its transaction commits and is named for its first sequence number; a commit that fails takes
it back. So the journal never forks, and what it holds beyond the catalog was left by a writer that was killed between the
two, or is everything since the backup that somebody put in the catalog's place. The next writer carries it out.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from registry.disk import make_directory, sync, unavailable, write_all
from registry.errors import UnavailableError


class Journal(Protocol):
    def write(self, first: int, segment: bytes) -> None:
        """Store a segment durably, replacing an unacknowledged one of the same number."""

    def remove(self, first: int) -> None:
        """Take back a segment that nobody acknowledged."""

    def settle(self, first: int) -> None:
        """See to it that a segment is durable which somebody else wrote, who may have died before its name was."""

    def read(self, first: int) -> bytes | None: ...
    def firsts(self) -> Iterator[int]:
        """The numbers of all segments, rising."""

    def leftovers(self) -> list[str]:
        """Names of temporary files: of a writer at work, or of one that was killed."""

    def sweep(self) -> list[str]:
        """Remove them. Only while nobody writes."""


class MemoryJournal:
    def __init__(self) -> None:
        self._segments: dict[int, bytes] = {}

    def write(self, first: int, segment: bytes) -> None:
        self._segments[first] = segment

    def remove(self, first: int) -> None:
        self._segments.pop(first, None)

    def settle(self, first: int) -> None: ...

    def read(self, first: int) -> bytes | None:
        return self._segments.get(first)

    def firsts(self) -> Iterator[int]:
        return iter(sorted(self._segments))

    def leftovers(self) -> list[str]:
        return []

    def sweep(self) -> list[str]:
        return []


class FileJournal:
    """``ROOT/000012/000012345.jsonl``: a folder per thousand sequence numbers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._settled: set[Path] = set()  # names that this process knows to be on disk

    def write(self, first: int, segment: bytes) -> None:
        path = self._path(first)
        try:
            self._write(path, segment)
        except OSError as error:
            hint = "nothing was recorded; free some space or check who owns the registry, then try again"
            raise unavailable(error, "write the journal", path, hint=hint) from error

    def remove(self, first: int) -> None:
        path = self._path(first)
        with _usable(self._root):
            if path.exists():
                path.unlink()
                sync(path.parent)

    def settle(self, first: int) -> None:
        with _usable(self._root):
            path = self._path(first)
            self._settle_folders(path)
            sync(path.parent)

    def read(self, first: int) -> bytes | None:
        path = self._path(first)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(
                f"cannot read the journal at {path}: {error.strerror or error}", path=path
            ) from error

    def firsts(self) -> Iterator[int]:
        with _usable(self._root):
            for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
                for path in sorted(folder.glob("*.jsonl")):
                    if path.stem.isdecimal():
                        yield int(path.stem)

    def leftovers(self) -> list[str]:
        return [path.name for path in self._temporary()]

    def sweep(self) -> list[str]:
        found = self._temporary()
        with _usable(self._root):
            for path in found:
                path.unlink(missing_ok=True)
        return [path.name for path in found]

    def _temporary(self) -> list[Path]:
        with _usable(self._root):
            return sorted(self._root.glob("*/*.tmp"))

    def _path(self, first: int) -> Path:
        return self._root / f"{first // 1000:06d}" / f"{first:09d}.jsonl"

    def _write(self, path: Path, segment: bytes) -> None:
        make_directory(path.parent)
        self._settle_folders(path)
        staged = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, segment)
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            os.rename(staged, path)
        except BaseException:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        sync(path.parent)

    def _settle_folders(self, path: Path) -> None:
        for folder in {self._root, path.parent} - self._settled:
            sync(folder.parent)  # whoever made it may have died before
            self._settled.add(folder)


@contextmanager
def _usable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "check the disk and who owns the registry"
        raise unavailable(error, "use the journal", root, hint=hint) from error
