"""Blobs as files: ``ROOT/sha256/ab/abcd…``, written once, read-only for everybody, never changed.

The order that makes an acknowledged blob survive a power loss: write to staging (looping on short writes), fsync the
file, read it back and hash it, rename it into place, fsync the directory. A staged file is locked by its writer, so
one whose lock is free belongs to nobody alive and may be swept at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from registry.disk import CHUNK, in_chunks, make_directory, sync, unavailable, write_all
from registry.domain.digest import Digest, Hasher
from registry.errors import DigestMismatchError, MissingBlobError

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHARD = re.compile(r"[0-9a-f]{2}", re.ASCII)


class FilesystemBlobs:
    """See :class:`registry.blobs.protocol.LocalBlobStore`. ``root`` holds the blobs, ``staging`` unfinished ones; both must be on
    one file system (rename must be atomic)."""

    is_local = True

    def __init__(self, root: Path, *, staging: Path) -> None:
        self._root = root
        self._blobs = root / "sha256"
        self._staging = staging
        self._settled: set[Path] = set()  # directories whose names this process has seen on disk

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        target = self._path(digest)
        try:
            if self._size(digest) is not None:  # one look: a collector may take it before the next
                self._directory(target.parent)
                sync(target.parent)  # whoever put it there may have died, or not have come to it yet
            else:
                self._store(digest, target, chunks)
        except OSError as error:
            raise unavailable(error, "store a blob", target) from error

    def size(self, digest: Digest) -> int:
        size = self._size(digest)
        if size is None:
            raise MissingBlobError(digest)
        return size

    def _size(self, digest: Digest) -> int | None:
        """None if nothing has the name. Raises MissingBlobError for what is no file."""
        try:
            status = os.lstat(self._path(digest))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error, "look at a blob", self._path(digest)) from error
        if not stat.S_ISREG(status.st_mode):
            raise _replaced(digest)
        return status.st_size

    def read(self, digest: Digest, *, start: int = 0) -> Iterator[bytes]:
        file = self.open(digest)
        file.seek(start)
        return _chunks(file, self._path(digest))

    def digests(self) -> Iterator[Digest]:
        for path in self._files():
            if _HEX.fullmatch(path.name) and path.parent.name == path.name[:2]:
                yield Digest.of_hex(path.name)

    def delete(self, digest: Digest) -> None:
        path = self._path(digest)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync(path.parent)
        except OSError as error:
            raise unavailable(error, "remove a blob", path) from error

    def open(self, digest: Digest) -> FileIO:
        """The blob for reading; whoever asks closes it. Raises MissingBlobError, UnavailableError."""
        path = self._path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise _replaced(digest)
            return FileIO(descriptor, "rb")
        except FileNotFoundError:
            raise MissingBlobError(digest) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise _replaced(digest) from None
            raise unavailable(error, "read a blob", path) from error

    def renew(self, digest: Digest) -> None:
        with suppress(OSError):
            os.utime(self._path(digest), follow_symlinks=False)

    def age(self, digest: Digest, *, now: float) -> float:
        path = self._path(digest)
        try:
            return max(0.0, now - os.lstat(path).st_mtime)
        except FileNotFoundError:
            return 0.0
        except OSError as error:
            raise unavailable(error, "look at a blob", path) from error

    def lay_out(self, digest: Digest, path: Path) -> None:
        self.size(digest)
        try:
            os.link(self._path(digest), path)
        except OSError:  # another file system, or too many links
            with open(path, "xb") as file:
                file.writelines(self.read(digest))

    @property
    def workplace(self) -> Path:
        return self._staging.parent / "work"

    def strangers(self) -> Iterator[tuple[Path, str]]:
        for path in self._files():
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue  # a collector was here
            except OSError as error:
                raise unavailable(error, "look at a blob", path) from error
            if not (_HEX.fullmatch(path.name) and path.parent.name == path.name[:2]):
                yield path, "is not named for a digest"
            elif not stat.S_ISREG(mode):
                yield path, "is not a regular file"
            elif mode & 0o222:
                yield path, f"is writable (mode {stat.S_IMODE(mode):04o}, expected 0444)"

    def leftovers(self) -> Iterator[Path]:
        for path in (*_entries(self._staging), *_entries(self.workplace)):
            with suppress(OSError), _held(path):
                yield path

    @property
    def uploads(self) -> Path:
        """Where a server keeps what came of uploads that somebody may go on with: a directory for each who does, with a file for
        each upload, locked while it is written to."""
        return self._staging.parent / "server" / "uploads"

    @property
    def xorbs(self) -> Path:
        """Where it keeps what waits to be put together to files: a directory for each session."""
        return self._staging.parent / "server" / "xet"

    def unfinished(self, *, now: float) -> Iterator[tuple[Path, float]]:
        """Uploads that somebody may go on with, each with the seconds in which nobody did, and locked until the next is
        asked for."""
        sent = (path for directory in _entries(self.uploads) if directory.is_dir() for path in _entries(directory))
        for path in (*sent, *_entries(self.xorbs)):
            with suppress(OSError), _held(path) as status:
                yield path, max(0.0, now - status.st_mtime)

    def _path(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    def _files(self) -> Iterator[Path]:
        for shard in _entries(self._blobs):
            if shard.is_dir() and not shard.is_symlink() and _SHARD.fullmatch(shard.name):
                yield from _entries(shard)
            else:
                yield shard

    def _store(self, digest: Digest, target: Path, chunks: Iterable[bytes]) -> None:
        make_directory(self._staging)
        self._directory(target.parent)
        staged, descriptor = self._stage(digest)
        try:
            handed = 0
            for chunk in chunks:
                write_all(descriptor, chunk)
                handed += len(chunk)
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            if os.fstat(descriptor).st_size != handed:
                raise OSError(errno.EIO, "the disk did not keep what it was given")
            actual = _digest_of(descriptor)
            if actual != digest:
                raise DigestMismatchError(
                    "what reached the disk",
                    expected=digest,
                    actual=actual,
                    hint="the file changed while it was read, or the disk is failing; try again",
                )
            os.rename(staged, target)
        except BaseException:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        sync(target.parent)

    def _directory(self, path: Path) -> None:
        """There, and its name on disk, up to the root: whoever made it may have died before that."""
        if path not in self._settled or not path.is_dir():
            if path == self._root:
                make_directory(path)
            else:
                self._directory(path.parent)
                with suppress(FileExistsError):
                    path.mkdir()
            sync(path.parent)
            self._settled.add(path)

    def _stage(self, digest: Digest) -> tuple[Path, int]:
        """A new file of ours, locked. A collector that met it before the lock took it for a leftover: then another."""
        while True:
            staged = self._staging / f"{digest.hex[:12]}-{secrets.token_hex(8)}"
            descriptor = None
            try:  # an interrupt may come when there is the file, and before its descriptor is known
                descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return staged, descriptor
            except BaseException:
                if descriptor is not None:
                    os.close(descriptor)
                staged.unlink(missing_ok=True)
                raise
            os.close(descriptor)


@contextmanager
def _held(path: Path) -> Iterator[os.stat_result]:
    """Locked; what it is. Raises OSError where somebody else has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _replaced(digest: Digest) -> MissingBlobError:
    return MissingBlobError(digest, hint="something that is not a file has taken its place; restore it")


def _entries(directory: Path) -> list[Path]:
    """Sorted; none if the directory is not there."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unavailable(error, "look through the store", directory) from error


def _chunks(file: FileIO, path: Path) -> Iterator[bytes]:
    try:
        with file:
            yield from in_chunks(file)
    except OSError as error:
        raise unavailable(error, "read a blob", path) from error


def _digest_of(descriptor: int) -> Digest:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return Hasher(iter(lambda: os.read(descriptor, CHUNK), b"")).digest
