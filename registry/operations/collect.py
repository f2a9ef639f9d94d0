"""Garbage collection: remove what no version reaches.

A blob goes only if nothing refers to it, asked again inside the catalog's one write transaction, and if it is older
than the grace period. Pushing verifies its blobs inside the same kind of transaction, so neither can miss the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.domain.digest import Digest

_BATCH = 200


class LocalBlobs(BlobStore, Protocol):
    """A store on this machine, which also knows ages and leftovers of killed writers."""

    def age(self, digest: Digest, *, now: float) -> float: ...
    def leftovers(self) -> Iterator[Path]: ...


@dataclass(frozen=True, slots=True)
class Collected:
    blobs: tuple[Digest, ...]
    bytes: int
    leftovers: tuple[str, ...]


def collect(*, blobs: LocalBlobs, catalog: Catalog, grace: float, now: float, dry_run: bool = False) -> Collected:
    """``grace`` in seconds. With ``dry_run`` nothing is changed and the answer says what would go."""
    referenced = set(catalog.references())
    candidates = [
        digest for digest in blobs.digests() if digest not in referenced and blobs.age(digest, now=now) >= grace
    ]
    staged = list(blobs.leftovers())
    leftovers = (*(path.name for path in staged), *catalog.sweep(dry_run=dry_run))
    if dry_run:
        return Collected(tuple(candidates), sum(blobs.size(digest) for digest in candidates), leftovers)
    for path in staged:
        path.unlink(missing_ok=True)  # first: on a full disk this makes the room that the catalog needs
    removed: list[Digest] = []
    freed = 0
    for start in range(0, len(candidates), _BATCH):
        batch = candidates[start : start + _BATCH]
        with catalog.writing() as writer:
            unneeded = writer.unreferenced(batch)
            if unneeded:
                writer.note_collection(unneeded)
            for digest in unneeded:
                freed += blobs.size(digest)
                blobs.delete(digest)
                removed.append(digest)
    return Collected(tuple(removed), freed, leftovers)
