"""A blob store in memory: for tests, and for trying things out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.domain.digest import Digest
from registry.errors import DigestMismatchError, MissingBlobError


class MemoryBlobs:
    is_local = True

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        if digest in self._blobs:
            return
        data = b"".join(chunks)
        actual = Digest.of(data)
        if actual != digest:
            raise DigestMismatchError("the bytes to store", expected=digest, actual=actual)
        self._blobs[digest] = data

    def size(self, digest: Digest) -> int:
        return len(self._get(digest))

    def read(self, digest: Digest, *, start: int = 0) -> Iterator[bytes]:
        return iter((self._get(digest)[start:],))

    def digests(self) -> Iterator[Digest]:
        return iter(tuple(self._blobs))

    def delete(self, digest: Digest) -> None:
        self._blobs.pop(digest, None)

    def _get(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest]
        except KeyError:
            raise MissingBlobError(digest) from None
