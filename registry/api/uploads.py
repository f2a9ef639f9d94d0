"""Uploads on their way to becoming blobs.

One that may take several attempts is a file for each caller and digest, locked while somebody writes to it: what arrived stays, and
how long it is is the truth about where the upload stands. What is not finished ends by the clock. One in a single piece is a file
without a name: any number of requests may send the same bytes at once, and nothing is left of one that broke.

When all of it is there it is hashed and becomes a blob.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from registry.api.tidying import remove
from registry.disk import unavailable, write_all
from registry.domain.digest import Hasher
from registry.errors import ConflictError, DigestMismatchError, InvalidInputError

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.domain.digest import Digest

_STEP = 1 << 20


class WrongBytesError(InvalidInputError):
    default_code = "digest-mismatch"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the upload has digest {actual}, expected {expected}; it was not stored")


class WrongOffsetError(ConflictError):
    """``offset`` is where the upload stands."""

    default_code = "wrong-offset"

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload stands at byte {offset:,}", hint="go on from there")
        self.offset = offset


class UploadInUseError(ConflictError):
    default_code = "upload-in-use"

    def __init__(self) -> None:
        super().__init__("this upload is being written to by another request", hint="wait, then ask for its offset")


class TooManyUploadsError(ConflictError):
    http_status = 429
    default_code = "too-many-uploads"

    def __init__(self, most: int) -> None:
        super().__init__(f"{most:,} uploads were begun and not finished", hint="finish some of them first")


class TooMuchUploadedError(ConflictError):
    http_status = 413
    default_code = "too-large"

    def __init__(self, most: int) -> None:
        super().__init__(f"unfinished uploads may have {most:,} bytes together", hint="finish some of them first")


class Upload:
    """An open one in ``place``: nobody else writes to it. ``path`` is None for a file without a name."""

    def __init__(self, digest: Digest, descriptor: int, place: Path, path: Path | None = None) -> None:
        self._digest = digest
        self._descriptor = descriptor
        self._place = place
        self._path = path

    @property
    def offset(self) -> int:
        return os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise unavailable(error, "keep an upload", self._place) from error

    def finish(self, blobs: BlobStore) -> None:
        """Raises WrongBytesError. Whatever comes of it, the upload is over."""
        try:
            blobs.put(self._digest, self._chunks())
            actual = Hasher(self._chunks()).digest  # the store does not look at what it has already
            if actual != self._digest:
                raise WrongBytesError(self._digest, actual)
        except DigestMismatchError as error:
            raise WrongBytesError(self._digest, error.actual) from None
        finally:
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def _chunks(self) -> Iterator[bytes]:
        position = 0
        while chunk := os.pread(self._descriptor, _STEP, position):
            yield chunk
            position += len(chunk)


class Uploads:
    """``place`` is a directory of the server's own; ``lifetime`` in seconds. ``most`` is how many each may leave unfinished, and
    ``most_bytes`` how long these may become together. How long one becomes is in its file's name."""

    def __init__(self, place: Path, *, lifetime: float, most: int, most_bytes: int) -> None:
        self._place = place
        self._lifetime = lifetime
        self._most = most
        self._most_bytes = most_bytes

    @contextmanager
    def in_one_piece(self, digest: Digest) -> Iterator[Upload]:
        """Gone at the end. Raises UnavailableError."""
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            file = TemporaryFile(dir=self._place, buffering=0)  # noqa: SIM115 - closed below
        except OSError as error:
            raise unavailable(error, "keep an upload", self._place) from error
        with file:
            yield Upload(digest, file.fileno(), self._place)

    @contextmanager
    def opened(self, actor: str, digest: Digest, length: int) -> Iterator[Upload]:
        """``length`` is the whole blob's; what arrived belongs to the digest, and stays if somebody now says another. Raises
        ConflictError while somebody else writes to it or for one too many, UnavailableError."""
        directory = self._of(actor)
        path = directory / f"{digest.hex}.{length}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with _locked(directory):
                begun = _begun(directory, digest)
                if begun is None:
                    self._require_room(directory, length)
                path = begun or path
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unavailable(error, "keep an upload", path) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UploadInUseError from None
            if os.fstat(descriptor).st_nlink == 0:  # it was finished between our opening and our locking it
                raise UploadInUseError
            path = self._of_length(path, length)
            try:
                yield Upload(digest, descriptor, self._place, path)
            finally:
                if os.fstat(descriptor).st_size == 0:  # nothing has begun
                    path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def offset(self, actor: str, digest: Digest) -> int:
        """How much of it arrived; 0 for none."""
        begun = _begun(self._of(actor), digest)
        try:
            return begun.stat().st_size if begun is not None else 0
        except FileNotFoundError:  # it was finished meanwhile
            return 0

    def _of_length(self, path: Path, length: int) -> Path:
        """The upload, which nobody else writes to, as one that becomes so long."""
        wanted = path.with_suffix(f".{length}")
        if wanted != path:
            try:
                with _locked(path.parent):
                    self._require_room(path.parent, length, besides=path)
                    os.rename(path, wanted)
            except OSError as error:
                raise unavailable(error, "keep an upload", path) from error
        return wanted

    def _require_room(self, directory: Path, length: int, *, besides: Path | None = None) -> None:
        lengths = [int(path.suffix[1:]) for path in directory.glob("*.*") if path != besides]
        if len(lengths) >= self._most:
            raise TooManyUploadsError(self._most)
        if sum(lengths) + length > self._most_bytes:
            raise TooMuchUploadedError(self._most_bytes)

    def sweep(self) -> None:
        """Remove the uploads that nobody went on with."""
        for path in self._place.glob("*/*"):
            with suppress(OSError):
                if path.stat().st_mtime <= time.time() - self._lifetime:
                    remove(path)

    def _of(self, actor: str) -> Path:
        return self._place / hashlib.sha256(actor.encode()).hexdigest()


def _begun(directory: Path, digest: Digest) -> Path | None:
    return min(directory.glob(f"{digest.hex}.*"), default=None)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
