"""Garbage collection: remove what no version reaches.

A blob goes only if nothing refers to it, asked again inside the catalog's one write transaction, and if it is older
than the grace period. Pushing verifies its blobs inside the same kind of transaction, so neither can miss the other.

What killed writers left goes at once, and after the grace period what came of uploads that nobody went on with: their files, and
the drafts that clients of the Hub's protocol committed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry.blobs.protocol import BlobStore, LocalBlobStore
from registry.catalog.protocol import Catalog
from registry.domain.digest import Digest
from registry.domain.moments import stamp
from registry.errors import MissingBlobError, UnavailableError

_BATCH = 200
#: Digits of a commit's id.
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Collected:
    blobs: tuple[Digest, ...]
    bytes: int
    leftovers: tuple[str, ...]


def collect(*, blobs: LocalBlobStore, catalog: Catalog, grace: float, now: float, dry_run: bool = False) -> Collected:
    """``grace`` in seconds: blobs and unfinished uploads that are younger are left alone. With ``dry_run`` nothing is changed and
    the answer says what would go."""
    begun = stamp(datetime.fromtimestamp(max(0.0, now - grace), UTC))
    drafts = [
        f"{adapter} {commit[:_SHOWN]}" for adapter, commits in catalog.dead_drafts(begun).items() for commit in commits
    ]
    referenced = set(catalog.references(dead_before=begun))

    def is_old(digest: Digest) -> bool:
        return blobs.age(digest, now=now) >= grace

    candidates = [digest for digest in blobs.digests() if digest not in referenced and is_old(digest)]
    left = _left(blobs, grace=grace, now=now)
    leftovers = (*_sweep(left, dry_run=dry_run), *catalog.sweep(dry_run=dry_run), *drafts)
    if dry_run:
        sizes = _sizes(candidates, blobs)
        return Collected(tuple(sizes), sum(sizes.values()), leftovers)
    if drafts:
        with catalog.writing() as writer:
            writer.drop_drafts(begun)
    removed: list[Digest] = []
    freed = 0
    for start in range(0, len(candidates), _BATCH):
        batch = candidates[start : start + _BATCH]
        with catalog.writing() as writer:
            unneeded = _sizes([each for each in writer.unreferenced(batch) if is_old(each)], blobs)
            if unneeded:
                writer.note_collection(list(unneeded))
            for digest, size in unneeded.items():
                blobs.delete(digest)
                removed.append(digest)
                freed += size
    return Collected(tuple(removed), freed, leftovers)


def _left(blobs: LocalBlobStore, *, grace: float, now: float) -> Iterator[Path]:
    """Each locked until the next is asked for."""
    yield from blobs.leftovers()
    for path, idle in blobs.unfinished(now=now):
        if idle >= grace:
            yield path


def _sweep(left: Iterator[Path], *, dry_run: bool) -> list[str]:
    """First of all: on a full disk this makes the room that the catalog needs."""
    names = []
    for path in left:
        names.append(path.name)
        if not dry_run:
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise UnavailableError(f"cannot remove the leftover {path}: {error.strerror}", path=path) from error
    return names


def _sizes(digests: Sequence[Digest], blobs: BlobStore) -> dict[Digest, int]:
    """Of those that are still there: another collector may have been faster."""
    found: dict[Digest, int] = {}
    for digest in digests:
        with suppress(MissingBlobError):
            found[digest] = blobs.size(digest)
    return found
