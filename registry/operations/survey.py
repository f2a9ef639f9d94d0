"""Which adapters fit this base, and will this engine serve them? One verdict for each adapter in the registry.

1. Page through the newest versions that are not yanked: those recorded for the base's repository, whatever the revision;
   all of them where no base was given. A directory has no name: of it those that something ties to it (:class:`Kin`).
2. Check each as it was recorded.
3. One that cannot be read gets a verdict too, and stops nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.checks.profile import Profile
from registry.domain.base_model import BaseModelId
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import MERGED
from registry.domain.names import Reference
from registry.domain.query import VersionQuery
from registry.domain.version import Version
from registry.errors import InvalidInputError, MalformedFileError, RegistryError, UnavailableError
from registry.operations.bases import CheckedBase, Shelf, stored_spec
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
    kin = Kin(base, shelf) if base is not None and base.id.id is None else None
    for version in _newest(catalog, base.id.id if base else None):  # 1
        if version.summary.peft_type == MERGED:
            continue  # a checkpoint, no adapter
        if kin is not None and not kin.has(version):
            continue
        try:
            adapter = under_alias(
                adapter_stored(Reference.parse(version.reference), blobs=blobs, catalog=catalog), shelf
            )
            yield check(adapter, base, profile, allow=allow)  # 2
        except RegistryError as error:
            yield refused(version.reference, error, base, profile)  # 3
        progress(version.summary.bytes)


def refused(
    subject: str,
    error: RegistryError,
    base: CheckedBase | None = None,
    profile: Profile | None = None,
    *,
    is_at_fault: bool = True,
) -> Verdict:
    """The verdict where an error came before any: the error is the finding. An adapter that cannot be read is broken, and
    fits nothing; one that is not there, not whole, or not ``at fault``, could not be checked."""
    where = error.where if isinstance(error, MalformedFileError) else None
    severity = (
        Severity.WARNING if isinstance(error, UnavailableError) else Severity.ERROR
    )  # as where a base is not known
    finding = Finding(error.code, severity, error.message, where, error.hint)
    name = profile.name if profile else None
    is_broken = is_at_fault and isinstance(error, InvalidInputError)
    answer = Answer.DOES_NOT_FIT if is_broken else Answer.CANNOT_CHECK
    return Verdict(subject, base, name, answer, (finding,), frozenset(), None, type(error))


class Kin:
    """Which versions may have been trained on a base that is a directory: by its path or its name, by the shapes that were
    recorded at the push, or because the registry keeps a base of these shapes under the name that the version says."""

    def __init__(self, base: CheckedBase, shelf: Shelf) -> None:
        self._shelf = shelf
        self._path = os.path.realpath(os.path.expanduser(base.id.raw or ""))
        self._name = os.path.basename((base.id.raw or "").rstrip("/")).lower()
        self._fingerprint = base.spec.fingerprint if base.spec is not None else None
        self._ids = {
            (stored.id.id or "").lower()
            for stored in (shelf.catalog.bases() if self._fingerprint is not None else ())
            if stored_spec(stored, shelf.blobs).fingerprint == self._fingerprint
        }

    def has(self, version: Version) -> bool:
        recorded = version.summary.base_model
        name = (self._shelf.same_name(BaseModelId(recorded.id)).id or "").lower()
        raw = recorded.raw or ""
        if name and (name in self._ids or name.rpartition("/")[2] == self._name):
            return True
        if self._fingerprint is not None and recorded.fingerprint == self._fingerprint:
            return True
        try:
            return os.path.isabs(raw) and os.path.realpath(raw) == self._path
        except ValueError:  # what an adapter says is any text
            return False


def _newest(catalog: Catalog, base: str | None) -> Iterator[Version]:
    query = VersionQuery(base=base, limit=_PAGE)
    while page := catalog.search(query):
        yield from page
        if len(page) < _PAGE:
            return
        query = query.behind(page[-1])
