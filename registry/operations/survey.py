"""Which adapters fit this base, and will this engine serve them? One verdict for each adapter in the registry.

1. Page through the newest versions that are not yanked: those recorded for the base's repository, whatever the revision,
   or all of them where the base has no name or none was given.
2. Check each as it was recorded.
3. One that cannot be read gets a verdict too, and stops nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.checks.profile import Profile
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import MERGED
from registry.domain.names import Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Version
from registry.errors import MalformedFileError, RegistryError
from registry.operations.bases import CheckedBase, Shelf
from registry.operations.check import Answer, Verdict, adapter_stored, check, under_alias

_PAGE = 500


def survey(
    base: CheckedBase | None = None,
    profile: Profile | None = None,
    *,
    blobs: BlobStore,
    catalog: Catalog,
    allow: Collection[str] = (),
    progress: Callable[[int], None] = lambda _count: None,
) -> Iterator[Verdict]:
    """By name. ``progress`` is told the bytes of each adapter that is done."""
    shelf = Shelf(blobs, catalog)
    for version in _newest(catalog, base.id.id if base else None):  # 1
        if version.summary.get("peft_type") == MERGED:
            continue  # a checkpoint, no adapter
        try:
            adapter = under_alias(
                adapter_stored(Reference.parse(version.reference), blobs=blobs, catalog=catalog), shelf
            )
            yield check(adapter, base, profile, allow=allow)  # 2
        except RegistryError as error:
            yield refused(version.reference, error, base, profile)  # 3
        size = version.summary.get("bytes")
        progress(size if isinstance(size, int) else 0)


def refused(
    subject: str, error: RegistryError, base: CheckedBase | None = None, profile: Profile | None = None
) -> Verdict:
    """The verdict where an error came before any: it could not be checked, and the error is the finding."""
    where = error.where if isinstance(error, MalformedFileError) else None
    finding = Finding(error.code, Severity.ERROR, error.message, where, error.hint)
    name = profile.name if profile else None
    return Verdict(subject, base, name, Answer.CANNOT_CHECK, (finding,), frozenset(), None, type(error))


def _newest(catalog: Catalog, base: str | None) -> Iterator[Version]:
    query = VersionQuery(base=base, limit=_PAGE)
    while page := catalog.search(query):
        yield from page
        if len(page) < _PAGE:
            return
        query = replace(query, after=page[-1].reference)
