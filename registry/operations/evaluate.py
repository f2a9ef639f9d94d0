"""Scores onto a version: read from a results file, or stated.

A file is kept by its digest beside what was read from it; the same file added twice adds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog, CatalogWriter
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation, usual_direction
from registry.domain.names import Reference
from registry.domain.version import Version
from registry.errors import InvalidInputError, MalformedResultsError
from registry.operations.directory import read_regular

MAX_RESULTS = 64 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """Evaluations with the file they came from, if they came from one."""

    evaluations: tuple[Evaluation, ...]
    raw: bytes | None = None

    @property
    def digest(self) -> Digest | None:
        return None if self.raw is None else Digest.of(self.raw)

    def store(self, blobs: BlobStore) -> None:
        if self.raw is not None and self.digest is not None:
            blobs.put(self.digest, (self.raw,))


def measured(
    source: str | Path,
    *,
    task: str | None = None,
    suite: str | None = None,
    split: str | None = None,
    stderr: float | None = None,
    n: int | None = None,
    higher_is_better: bool | None = None,
) -> Measured:
    """``metric=value``, ``task/metric=value`` or the path of a results file. What is given besides fills in what the source
    leaves open.

    Raises MalformedResultsError, UnsuitableDirectoryError for a path that cannot be read.
    """
    from registry.formats.results import is_assignment, parse_assignment  # a push without scores needs none

    if stderr is not None and not 0 <= stderr < float("inf"):
        raise InvalidInputError(f"a standard error of {stderr} cannot be: expected a finite number, 0 or more")
    if n is not None and not 0 < n < 1 << 53:
        raise InvalidInputError(f"{n} examples cannot be: expected a whole number from 1")
    named, slash, assignment = str(source).rpartition("/")
    if is_assignment(assignment) and not named.startswith((".", "/")) and not os.path.isfile(source):
        stated = parse_assignment(assignment)
        task = task or (named if slash else None)
        direction = usual_direction(stated.metric) if higher_is_better is None else higher_is_better
        filled = replace(
            stated,
            task=task or stated.task,
            suite=suite or stated.suite,
            split=split or stated.split,
            stderr=stated.stderr if stderr is None else stderr,
            n=stated.n if n is None else n,
            higher_is_better=direction,
        )
        return Measured((filled,))
    path = Path(source)
    found = _read(read_regular(path), str(path), path.name)
    filled_in = (
        replace(
            each,
            task=each.task or task,
            suite=suite or each.suite,
            split=each.split or split,
            stderr=each.stderr if each.stderr is not None else stderr,
            n=each.n if each.n is not None else n,
            higher_is_better=each.higher_is_better if higher_is_better is None else higher_is_better,
        )
        for each in found.evaluations
    )
    return replace(found, evaluations=tuple(filled_in))


def stored_results(digest: Digest, name: str, blobs: BlobStore) -> Measured:
    """What a results file says that is a blob already. Raises MalformedResultsError, MissingBlobError."""
    return _read(blobs.read(digest), f"{name} ({digest})", name)


def _read(chunks: Iterable[bytes], where: str, name: str) -> Measured:
    from registry.formats.results import read_results

    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_RESULTS:
            raise MalformedResultsError(
                where, f"has more than {MAX_RESULTS:,} bytes", hint="give the summary, not the samples"
            )
    found = read_results(bytes(data), where=where)
    return Measured(tuple(replace(each, source=name) for each in found), bytes(data))


def evaluate(
    reference: Reference, sources: Sequence[Measured], *, blobs: BlobStore, catalog: Catalog
) -> tuple[Version, int]:
    """Add scores to a version, all in one transaction; returns it and how many were new."""
    catalog.resolve(reference)
    for each in sources:
        each.store(blobs)
    with catalog.writing() as writer:
        version = writer.resolve(reference)
        for each in sources:
            each.store(blobs)
        return version, sum(record(version, each, writer) for each in sources)


def record(version: Version, each: Measured, writer: CatalogWriter) -> int:
    return writer.add_evaluations(version, each.evaluations, raw=each.digest)
