"""Stored manifests, read and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest, parse_manifest
from registry.errors import CorruptionError, DigestMismatchError

#: Bytes of a manifest that are read: many times what the largest header of weights makes.
_MOST = 512 << 20


def manifest_of(digest: Digest, blobs: BlobStore) -> Manifest:
    """The manifest with this digest. Raises MissingBlobError, or CorruptionError if the bytes are others."""
    data = _within_bounds(digest, blobs.read(digest))
    actual = Digest.of(data)
    if actual != digest:
        raise DigestMismatchError(
            "a stored manifest", expected=digest, actual=actual, hint="run `adapters doctor --deep`"
        )
    return parse_manifest(data)


def _within_bounds(digest: Digest, chunks: Iterable[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > _MOST:
            raise CorruptionError(f"{digest} is no manifest: it has more than {_MOST >> 20} MiB")
    return bytes(data)


def surviving(blobs: BlobStore) -> Callable[[Digest], Manifest | None]:
    """:func:`manifest_of` for those who go on without: None for a manifest that is gone or damaged."""

    def find(digest: Digest) -> Manifest | None:
        try:
            return manifest_of(digest, blobs)
        except CorruptionError:
            return None

    return find
