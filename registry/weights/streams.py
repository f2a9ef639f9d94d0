"""Bytes between files, at given places, from several threads at once.

Reading and writing go through positions, so that nobody shares a cursor. What is copied unchanged never passes through this
process where the system can do it itself: ``copy_file_range``, else ``sendfile``, else by hand.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from registry.disk import write_at
from registry.domain.checkpoint import Shard
from registry.errors import MalformedFileError, UnavailableError

_STEP = 8 << 20
#: What a file system answers that cannot do it; or that a disk failed, and by hand it turns out which.
_UNABLE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EPERM, errno.EIO})


class Sources:
    """Files that are read while others are written; :meth:`require_unchanged` tells whether somebody wrote to them."""

    def __init__(self, paths: Iterable[Path], stack: ExitStack) -> None:
        self._files: dict[Path, int] = {}
        self._seen: dict[Path, tuple[int, ...]] = {}
        for path in paths:
            with _reading(path):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            self._files[path] = descriptor
            self._seen[path] = _identity(os.fstat(descriptor))

    def require_as_read(self, shards: Iterable[Shard]) -> None:
        """The files whose tables were read before, not others that took their names or were written since."""
        for shard in shards:
            if self._seen[shard.path][2:] != (shard.size, shard.modified):
                raise _changed(shard.path, "was changed since its table was read")

    def descriptor(self, path: Path) -> int:
        return self._files[path]

    def read_into(self, path: Path, start: int, into: memoryview) -> None:
        """Fill ``into`` from the byte ``start`` on. Raises MalformedFileError where the file ends before."""
        filled = 0
        while filled < len(into):
            with _reading(path):
                count = os.preadv(self._files[path], [into[filled:]], start + filled)
            if not count:
                raise _changed(path, "became shorter while it was read")
            filled += count

    def require_unchanged(self) -> None:
        """Also that the name still stands for the file that was opened."""
        for path, before in self._seen.items():
            try:
                now = _identity(os.stat(path))
            except OSError:
                now = ()
            if now != before:
                raise _changed(path, "was changed while it was read")


@contextmanager
def sources(paths: Iterable[Path]) -> Iterator[Sources]:
    with ExitStack() as stack:
        yield Sources(paths, stack)


def copy_range(source: int, start: int, count: int, target: int, at: int, *, where: Path) -> None:
    """``count`` bytes from ``start`` of one file to ``at`` of another. ``where`` is the source's name, for the error."""
    while count:
        try:
            copied = os.copy_file_range(source, target, count, start, at)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            _copy_by_hand(source, start, count, target, at, where)
            return
        if not copied:
            raise _changed(where, "became shorter while it was read")
        start, at, count = start + copied, at + copied, count - copied


def _copy_by_hand(source: int, start: int, count: int, target: int, at: int, where: Path) -> None:
    while count:
        with _reading(where):
            piece = os.pread(source, min(count, _STEP), start)
        if not piece:
            raise _changed(where, "became shorter while it was read")
        write_at(target, piece, at)
        start, at, count = start + len(piece), at + len(piece), count - len(piece)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """An input that cannot be read is not to be taken for an output that cannot be written."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"cannot read {path}: {error.strerror}", hint="look at the disk and at `ulimit -a`, then try again"
        ) from error


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: Path, what: str) -> MalformedFileError:
    return MalformedFileError(
        str(path),
        what,
        code="changed-while-read",
        hint="wait until whoever writes the file has finished, then try again",
    )
