"""Files of this machine: the paths that people give, and what has to survive a power loss: every byte written, then synced, and the
directories that hold the names too."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import IO

from registry.errors import InvalidInputError, UnavailableError

#: Bytes that are read at a time.
CHUNK = 1 << 20
#: Bytes of a path, with the zero at its end, and of each of its names (limits.h of Linux).
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
#: What a system says that has no room.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HINTS = {
    errno.ENOSPC: "free some space, then run the same command again; nothing was recorded",
    errno.EDQUOT: "free some space, then run the same command again; nothing was recorded",
    errno.EROFS: "the registry is on a read-only file system: list, show and pull still work",
    errno.EACCES: "check who owns the registry's directory",
    errno.EFBIG: "a file-size limit is in force (ulimit -f); raise it",
}


def path_of(text: str | Path) -> Path:
    """The path that somebody gave, with the home that ``~`` means. Raises InvalidInputError for what no file system here has."""
    try:
        path = Path(text).expanduser()
        encoded = os.fsencode(path)
    except RuntimeError:
        raise InvalidInputError(
            f"{str(text)!r:.120} lies in the home of a user that is not known here",
            code="unknown-home",
            hint="give the path itself; for a directory of that name: ./~…",
        ) from None
    except UnicodeError:
        encoded = b"\0"
    if b"\0" in encoded or len(encoded) >= _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise InvalidInputError(
            f"{str(text)!r:.120} is no path: expected names of at most {_LONGEST_NAME} bytes, "
            f"less than {_LONGEST_PATH:,} in all, without zeros",
            code="invalid-path",
        )
    return path


def in_chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: ``os.write`` may answer short, near a limit it does."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, data: bytes | memoryview, start: int) -> None:
    """Every byte, from the byte ``start`` of the file on; the descriptor's own position is left alone."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count


@contextmanager
def new_file(path: Path) -> Iterator[BufferedWriter]:
    """Open for writing; it must not exist. Its bytes are on the disk when the block ends, its name once its directory is synced."""
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_new(data: bytes, path: Path) -> None:
    with new_file(path) as file:
        file.write(data)


def sync(path: Path) -> None:
    """The bytes of a file, or the names in a directory, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Like ``mkdir -p``, and each new name is on disk when this returns."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    sync(path.parent)


def unavailable(error: OSError, attempt: str, path: Path, *, hint: str | None = None) -> UnavailableError:
    """The sentence for an operating system's refusal: nothing of ours is at fault, later or elsewhere may work."""
    return UnavailableError(
        f"cannot {attempt} at {path}: {error.strerror or error}",
        code="no-space" if error.errno in NO_SPACE else None,
        hint=hint or _HINTS.get(error.errno or 0),
        path=path,
    )
