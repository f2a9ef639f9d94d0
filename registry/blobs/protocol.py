"""What a blob store is, and what one on this machine can do besides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from registry.domain.digest import Digest


class BlobStore(Protocol):
    @property
    def is_local(self) -> bool:
        """Whether reading costs no network. A store elsewhere verifies what it keeps."""

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Store bytes, all or nothing: when this returns they survive a power loss.

        Storing what is there already is a no-op that does not consume ``chunks``. Raises
        :class:`~registry.errors.DigestMismatchError` if the bytes are others, and
        :class:`~registry.errors.UnavailableError` if the medium fails; either way nothing is left visible.
        """

    def size(self, digest: Digest) -> int:
        """Length in bytes. Raises :class:`~registry.errors.MissingBlobError`."""

    def read(self, digest: Digest, *, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, unverified: whoever exposes them as complete hashes them.

        Raises :class:`~registry.errors.MissingBlobError` before the first chunk is asked for.
        """

    def digests(self) -> Iterator[Digest]:
        """Every blob, in no particular order."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob; removing what is not there is a no-op."""


class LocalBlobStore(BlobStore, Protocol):
    """In files on this machine."""

    @property
    def workplace(self) -> Path:
        """Where unfinished things may lie: on the file system of the blobs. What nobody holds a lock on is a leftover."""

    def renew(self, digest: Digest) -> None:
        """Of an age of 0 from now on, for somebody who is told that it need not be sent. Nothing, where nothing has the name."""

    def age(self, digest: Digest, *, now: float) -> float:
        """Seconds since the blob was stored, or somebody was told that it is; 0 if it is gone."""

    def lay_out(self, digest: Digest, path: Path) -> None:
        """The blob once more under a name outside the store, for reading. Raises MissingBlobError."""

    def strangers(self) -> Iterator[tuple[Path, str]]:
        """Files of the store that are no sound blobs by name, kind or mode, each with what is wrong."""

    def leftovers(self) -> Iterator[Path]:
        """Unfinished files whose writer is gone, each locked until the next is asked for."""

    def unfinished(self, *, now: float) -> Iterator[tuple[Path, float]]:
        """Uploads that somebody may go on with, each with the seconds in which nobody did, locked until the next is asked
        for."""
