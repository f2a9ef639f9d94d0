"""A described directory becomes a version.

1. Refuse what has errors nobody allowed.
2. If the catalog has this very manifest for this adapter, and its files are there, there is nothing to store.
3. Store the files, then the manifest: every byte is durable before a row says so.
4. In one transaction: make sure the blobs are still there (a collector may have run), add the version, and move what
   was asked to move. Only then is it visible.
5. Whatever goes wrong on the way, an interrupt too: what was stored and nobody refers to is taken away again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog, CatalogWriter
from registry.checks.misfit import Misfit
from registry.domain.digest import Digest, Hasher
from registry.domain.evaluation import checked_evaluations
from registry.domain.finding import Finding, Severity
from registry.domain.names import AdapterName, AliasName
from registry.domain.tags import checked_tags
from registry.domain.texts import NOTE
from registry.domain.version import Version
from registry.errors import (
    ChangedMeanwhileError,
    ConflictError,
    DefectiveAdapterError,
    DigestMismatchError,
    MisfitError,
    MissingBlobError,
    RegistryError,
)
from registry.operations.check import NOT_CHECKED
from registry.operations.describe import AdapterPackage
from registry.operations.directory import read_regular
from registry.operations.evaluate import Measured, record

#: So often a transaction is tried that others come between.
_TURNS = 6


@dataclass(frozen=True, slots=True)
class Attachments:
    """What goes with a version from the start, in the same transaction. Raises InvalidInputError for what no catalog takes, before
    anything is stored."""

    aliases: Sequence[AliasName] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    evaluations: Sequence[Measured] = ()
    note: str | None = None

    def __post_init__(self) -> None:
        checked_tags(self.tags)
        for measured in self.evaluations:
            checked_evaluations(measured.evaluations)
        if self.note is not None:
            NOTE.checked(self.note)

    @property
    def any(self) -> bool:
        return bool(self.aliases or self.tags or self.evaluations)


@dataclass(frozen=True, slots=True)
class Published:
    """``created`` is False if this content was that version already."""

    version: Version
    created: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    package: AdapterPackage
    adapter: AdapterName
    attachments: Attachments = Attachments()


def publish(
    submissions: Sequence[Submission],
    *,
    blobs: BlobStore,
    catalog: Catalog,
    allow: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _count: None,
) -> list[Published]:
    """All of them become versions, in one transaction, or none. Raises DefectiveAdapterError before anything is written."""
    for submission in submissions:  # 1
        refuse_errors(submission.package, allow)
    known = [  # 2
        version if version is not None and _is_whole(each.package, blobs) else None
        for each in submissions
        for version in [catalog.find_version(each.adapter, each.package.manifest.digest)]
    ]
    if all(version is not None and not each.attachments.any for version, each in zip(known, submissions, strict=True)):
        return [
            _published(version, each, created=False, allow=allow)
            for version, each in zip(known, submissions, strict=True)
            if version is not None
        ]
    catalog.prepare()  # a full disk that has no room for a catalog refuses before it holds blobs that nobody can take back
    stored: list[Digest] = []
    try:
        for version, submission in zip(known, submissions, strict=True):  # 3
            if version is None:
                _store(submission.package, blobs, stored, progress, settle=True)
            for measured in submission.attachments.evaluations:
                measured.store(blobs)
        return _entered(submissions, blobs, catalog, stored, allow)  # 4
    except BaseException:
        with suppress(RegistryError):  # 5
            _withdraw(stored, blobs, catalog)
        raise


def _entered(
    submissions: Sequence[Submission], blobs: BlobStore, catalog: Catalog, stored: list[Digest], allow: Sequence[str]
) -> list[Published]:
    """Again, if somebody else came between: what is pushed does not depend on what they did."""
    for turn in range(_TURNS):
        try:
            with catalog.writing() as writer:
                return [_enter(submission, blobs, writer, stored, allow) for submission in submissions]
        except ChangedMeanwhileError:
            if turn == _TURNS - 1:
                raise
            time.sleep(random.uniform(0.0, 0.1) * 2**turn)  # noqa: S311 - so that they do not meet again
    raise AssertionError("the last turn returns or raises")


def refuse_errors(package: AdapterPackage, allow: Sequence[str]) -> None:
    """Raises DefectiveAdapterError, or MisfitError if only the base is against it, with every finding of severity ``error``
    whose rule is not in ``allow``."""
    errors = [
        finding for finding in package.findings if finding.severity is Severity.ERROR and finding.rule not in allow
    ]
    own = [finding for finding in errors if not isinstance(finding, Misfit)]
    if own:
        raise DefectiveAdapterError(str(package.directory), own)
    if errors:
        raise MisfitError(str(package.directory), errors)


def _enter(
    submission: Submission, blobs: BlobStore, writer: CatalogWriter, stored: list[Digest], allow: Sequence[str]
) -> Published:
    package, attachments = submission.package, submission.attachments
    _store(package, blobs, stored)
    version, created = writer.add_version(
        submission.adapter,
        package.manifest,
        note=attachments.note,
        fingerprint=package.fingerprint,
        weights_fingerprint=package.weights_fingerprint,
        findings=kept_findings(package.findings),
    )
    writer.set_tags(version, attachments.tags)
    for measured in attachments.evaluations:
        measured.store(blobs)
        record(version, measured, writer)
    for alias in attachments.aliases:
        writer.move_alias(version.adapter, alias, version.number)
    return _published(_with(version, attachments), submission, created=created, allow=allow)


def _with(version: Version, attachments: Attachments) -> Version:
    """As it is from now on."""
    aliases = {alias.lower(): alias for alias in (*version.aliases, *map(str, attachments.aliases))}
    scores = [score for measured in attachments.evaluations for score in measured.evaluations]
    return replace(
        version,
        aliases=tuple(aliases[key] for key in sorted(aliases)),
        tags=dict(sorted({**version.tags, **attachments.tags}.items())),
        score=scores[-1] if scores else version.score,
    )


def kept_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are kept with a version: what is about the push alone is not."""
    return [each for each in findings if each.severity is not Severity.INFO and each.rule != NOT_CHECKED]


def _published(version: Version, submission: Submission, *, created: bool, allow: Sequence[str]) -> Published:
    """With what is to be said about this push, besides what is kept about the version."""
    findings = list(submission.package.findings)
    for rule in sorted(set(allow) - {finding.rule for finding in findings}):
        fix = "leave it away, or look at its spelling"
        findings.append(Finding("nothing-to-allow", Severity.WARNING, f"--allow {rule} met no finding", rule, fix))
    if version.yanked is not None:
        message = f"{version.reference}, which this content is, is yanked: {version.yanked}"
        findings.append(
            Finding("version-yanked", Severity.WARNING, message, version.reference, "unyank it if it is good again")
        )
    return Published(version, created, tuple(findings))


def _store(
    package: AdapterPackage,
    blobs: BlobStore,
    stored: list[Digest],
    progress: Callable[[int], None] = lambda _count: None,
    *,
    settle: bool = False,
) -> None:
    """Idempotent: what is there is left alone; with ``settle`` the store sees to it that it is durable, whoever put it
    there. ``stored`` grows by what was not."""
    data = package.manifest.canonical_bytes
    wanted: list[tuple[Digest, int, Callable[[], Iterator[bytes]]]] = [
        (entry.digest, entry.size, partial(read_regular, package.paths[entry.digest], progress))
        for entry in package.manifest.files
    ]
    wanted.append((package.manifest.digest, len(data), lambda: iter((data,))))
    for digest, size, chunks in wanted:
        there = _is_there(digest, size, blobs, verify=settle)
        if not there:
            stored.append(digest)
        if settle or not there:
            _put(digest, chunks, blobs)


def _is_there(digest: Digest, size: int, blobs: BlobStore, *, verify: bool) -> bool:
    """``verify`` reads it as well: a version is not acknowledged on top of bytes that have rotted. A store elsewhere sees to
    that itself."""
    try:
        if blobs.size(digest) == size and not (verify and _has_rotted(digest, blobs)):
            return True
        blobs.delete(digest)  # nobody can be reading it with success
    except MissingBlobError:
        pass
    return False


def _has_rotted(digest: Digest, blobs: BlobStore) -> bool:
    return blobs.is_local and Hasher(blobs.read(digest)).digest != digest


def _is_whole(package: AdapterPackage, blobs: BlobStore) -> bool:
    """Whether every file is stored, byte for byte. What damage took away or changed is stored again."""
    manifest = package.manifest
    sizes = {manifest.digest: len(manifest.canonical_bytes), **{each.digest: each.size for each in manifest.files}}
    try:
        return all(blobs.size(digest) == size and not _has_rotted(digest, blobs) for digest, size in sizes.items())
    except MissingBlobError:
        return False


def _put(digest: Digest, chunks: Callable[[], Iterator[bytes]], blobs: BlobStore) -> None:
    try:
        blobs.put(digest, chunks())
    except DigestMismatchError as error:
        raise ConflictError(
            "a file changed while it was being pushed; nothing was recorded",
            code="changed-while-pushed",
            hint="wait until the trainer has finished writing, then push again",
        ) from error


def _withdraw(stored: Sequence[Digest], blobs: BlobStore, catalog: Catalog) -> None:
    """Inside the write transaction, as a collector does: somebody else may have come to need the same bytes."""
    if stored:
        with catalog.writing() as writer:
            for digest in writer.unreferenced(stored):
                blobs.delete(digest)
