"""Stored manifests, read and verified."""

from __future__ import annotations

from collections.abc import Callable

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest, parse_manifest
from registry.errors import CorruptionError, DigestMismatchError


def manifest_of(digest: Digest, blobs: BlobStore) -> Manifest:
    """The manifest with this digest. Raises MissingBlobError, or CorruptionError if the bytes are others."""
    data = b"".join(blobs.read(digest))
    actual = Digest.of(data)
    if actual != digest:
        raise DigestMismatchError(
            "a stored manifest", expected=digest, actual=actual, hint="run `adapters doctor --deep`"
        )
    return parse_manifest(data)


def surviving(blobs: BlobStore) -> Callable[[Digest], Manifest | None]:
    """:func:`manifest_of` for those who go on without: None for a manifest that is gone or damaged."""

    def find(digest: Digest) -> Manifest | None:
        try:
            return manifest_of(digest, blobs)
        except CorruptionError:
            return None

    return find
