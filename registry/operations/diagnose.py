"""Is everything that was acknowledged still there and still itself?

Each problem names the invariant it breaks:

I1 a version's manifest and files exist, with the recorded size and digest    I2 a blob is named for its digest, 0444
I9 the audit is whole, the journal agrees, and the catalog, its numbers and aliases among it, is what the audit says

``deep`` reads every byte. Leftovers of killed commands are no problem: the next collection takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from registry.blobs.protocol import BlobStore, LocalBlobStore
from registry.catalog.protocol import Catalog
from registry.domain.digest import Digest, Hasher
from registry.errors import CorruptionError, MissingBlobError
from registry.operations.manifests import manifest_of, surviving

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """``owners`` are the references of the versions that suffer from it."""

    invariant: str
    message: str
    blob: str | None = None
    owners: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        return {"invariant": self.invariant, "message": self.message, "blob": self.blob, "owners": list(self.owners)}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    problems: tuple[Problem, ...]
    versions: int
    blobs: int
    unreferenced: int


def diagnose(
    *, blobs: LocalBlobStore, catalog: Catalog, deep: bool, progress: Callable[[int], None] = lambda _count: None
) -> Diagnosis:
    problems: list[Problem] = []
    checked: dict[Digest, str | None] = {}

    def look(digest: Digest, size: int | None) -> str | None:
        if digest not in checked:
            checked[digest] = _trouble(digest, size, blobs, deep, progress)
        return checked[digest]

    def asked(question: Callable[[], Iterable[T]]) -> list[T]:
        """What the catalog answers; if it is too damaged to answer, that is a problem, and the rest is looked at all the same."""
        try:
            return list(question())
        except CorruptionError as error:
            problem = Problem("I9", error.message if error.hint is None else f"{error.message}: {error.hint}")
            if problem not in problems:
                problems.append(problem)
            return []

    versions = asked(catalog.live_versions)
    for version in versions:
        trouble = look(version.digest, None)
        if trouble is None:
            try:
                entries = manifest_of(version.digest, blobs).files
            except CorruptionError as error:
                trouble, entries = error.message, ()
        else:
            entries = ()
        if trouble is not None:
            problems.append(Problem("I1", f"the manifest {trouble}", version.digest, (version.reference,)))
        for entry in entries:
            wrong = look(entry.digest, entry.size)
            if wrong is not None:
                owners = tuple(asked(partial(catalog.owners, entry.digest))) or (version.reference,)
                problem = Problem("I1", f"{entry.path} {wrong}", entry.digest, owners)
                if not any(known.blob == problem.blob for known in problems):
                    problems.append(problem)
    for digest in asked(catalog.references):
        if digest not in checked and (wrong := look(digest, None)) is not None:
            problems.append(
                Problem(
                    "I1",
                    f"a recorded results file or base model {wrong}",
                    digest,
                    tuple(asked(partial(catalog.owners, digest))),
                )
            )
    stored = 0
    unreferenced = 0
    for digest in blobs.digests():
        stored += 1
        if digest not in checked:
            unreferenced += 1
            if deep and (wrong := look(digest, None)) is not None:
                problems.append(Problem("I2", f"an unreferenced blob {wrong}", digest))
    problems += [Problem("I2", f"{path} {why}") for path, why in blobs.strangers()]
    if stored and asked(lambda: [catalog.exists()]) == [False]:
        problems.append(
            Problem("I9", f"there are {stored:,} blobs and neither a catalog nor a journal: restore them from a backup")
        )
    wrong_with_catalog = asked(lambda: catalog.verify(surviving(blobs)))
    problems += [Problem("I9", sentence) for sentence in wrong_with_catalog]
    return Diagnosis(tuple(problems), len(versions), stored, unreferenced)


def _trouble(
    digest: Digest, size: int | None, blobs: BlobStore, deep: bool, progress: Callable[[int], None]
) -> str | None:
    try:
        actual = blobs.size(digest)
        if size is not None and actual != size:
            return f"has {actual:,} bytes, expected {size:,}"
        if deep:
            hasher = Hasher()
            for chunk in blobs.read(digest):
                hasher.update(chunk)
                progress(len(chunk))
            if hasher.digest != digest:
                return f"was changed: its bytes hash to {hasher.digest}"
    except MissingBlobError:
        return "is missing"
    return None
