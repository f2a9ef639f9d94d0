"""Bytes of which the SHA-256 is known beforehand become a blob."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.domain.digest import Hasher
from registry.errors import DigestMismatchError, InvalidInputError

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.domain.digest import Digest


class WrongBytesError(InvalidInputError):
    default_code = "digest-mismatch"

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(f"{what} has SHA-256 {actual}, expected {expected}; it was not stored")


class WrongSizeError(InvalidInputError):
    default_code = "size-mismatch"

    def __init__(self, what: str, expected: int, actual: str) -> None:
        super().__init__(f"{what} has {actual} bytes, expected {expected:,}; it was not stored")


def take(digest: Digest, size: int, chunks: Iterator[bytes], blobs: BlobStore) -> None:
    """All of the bytes are read and hashed, also if the store has them: who sends them shows that they have them.

    Raises WrongBytesError, WrongSizeError with nothing stored.
    """
    seen = _Seen(size, chunks)
    try:
        blobs.put(digest, seen)
    except DigestMismatchError as error:
        raise WrongBytesError("the upload", digest, error.actual) from None
    for _ in seen:  # what is there already is not read by the store
        pass
    if seen.hasher.digest != digest:
        raise WrongBytesError("the upload", digest, seen.hasher.digest)


class _Seen(Iterator[bytes]):
    def __init__(self, size: int, chunks: Iterator[bytes]) -> None:
        self.hasher = Hasher()
        self._size, self._chunks = size, chunks

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            if self.hasher.size != self._size:
                raise WrongSizeError("the upload", self._size, f"{self.hasher.size:,}") from None
            raise
        self.hasher.update(chunk)
        if self.hasher.size > self._size:
            raise WrongSizeError("the upload", self._size, f"at least {self.hasher.size:,}")
        return chunk
