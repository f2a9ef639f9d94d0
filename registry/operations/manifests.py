"""Stored manifests, read and verified."""

from __future__ import annotations

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest, parse_manifest
from registry.errors import DigestMismatchError


def manifest_of(digest: Digest, blobs: BlobStore) -> Manifest:
    """The manifest with this digest. Raises MissingBlobError, or CorruptionError if the bytes are others."""
    data = b"".join(blobs.read(digest))
    actual = Digest.of(data)
    if actual != digest:
        raise DigestMismatchError(
            "a stored manifest", expected=digest, actual=actual, hint="run `adapters doctor --deep`"
        )
    return parse_manifest(data)
