"""A name becomes the version that a serving layer is to load, if it can.

1. An alias or a number says which version; without either it is the newest that is not yanked and fits.
2. It must have been trained on the base that runs, and the engine must be able to serve it: errors of the rules refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.checks.profile import Profile, find_profile
from registry.domain.finding import Severity
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.version import Version
from registry.errors import InvalidInputError, RejectedError, UnservableError
from registry.operations.bases import Shelf, base_called
from registry.operations.check import Answer, adapter_stored, check, under_alias
from registry.operations.manifests import manifest_of

#: So many versions of a name are tried, newest first.
_TRIED = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    alias: AliasName | None = None
    number: int | None = None
    base: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    version: Version
    manifest: Manifest

    @property
    def commit(self) -> str:
        """The version as a commit of the Hub's protocol."""
        return self.version.digest.hex[:40]

    def document(self, address: str) -> dict[str, object]:
        """``address`` is the server's, without a slash at the end. Keys are only ever added."""
        version, manifest = self.version, self.manifest
        return {
            "adapter": str(version.adapter),
            "version": version.number,
            "reference": version.reference,
            "digest": version.digest,
            "aliases": list(version.aliases),
            "yanked": version.yanked,
            "base_model": version.summary.base_model.name,
            "peft_type": manifest.peft_type,
            "variant": manifest.variant,
            "rank": manifest.rank,
            "alpha": manifest.alpha,
            "scaling": manifest.scaling,
            "target_modules": manifest.target_modules,
            "bytes": manifest.bytes,
            "repository": f"{version.adapter}.v{version.number}",
            "commit": self.commit,
            "files": [
                {
                    "path": entry.path,
                    "digest": entry.digest,
                    "size": entry.size,
                    "role": entry.role.value,
                    "url": f"{address}/v1/blobs/{entry.digest}",
                }
                for entry in manifest.files
            ],
        }


def resolved(adapter: AdapterName, wanted: Wanted, *, blobs: BlobStore, catalog: Catalog) -> Resolved:
    """Raises NotFoundError, InvalidNameError for an engine nobody knows, RejectedError for a version that does not fit."""
    if wanted.alias is not None and wanted.number is not None:
        raise InvalidInputError("an alias and a version are two answers to one question: give one of them")
    profile = find_profile(wanted.engine) if wanted.engine is not None else None
    exact = wanted.alias is not None or wanted.number is not None or (wanted.base is None and profile is None)
    refusal: RejectedError | None = None
    for version in _candidates(adapter, wanted, exact=exact, catalog=catalog):
        try:
            _require_fitting(version, wanted.base, profile, blobs=blobs, catalog=catalog)
            return Resolved(version, manifest_of(version.digest, blobs))
        except RejectedError as error:
            if exact:
                raise
            refusal = refusal or error
    raise refusal or RejectedError(f"{adapter} has no version that fits")


def _candidates(adapter: AdapterName, wanted: Wanted, *, exact: bool, catalog: Catalog) -> Iterator[Version]:
    if exact:
        yield catalog.resolve(Reference(adapter, number=wanted.number, alias=wanted.alias))
        return
    catalog.resolve(Reference(adapter))  # whoever has none says why
    yield from (version for version in catalog.versions(adapter, limit=_TRIED) if version.yanked is None)


def _require_fitting(
    version: Version, base: str | None, profile: Profile | None, *, blobs: BlobStore, catalog: Catalog
) -> None:
    if base is None and profile is None:
        return
    shelf = Shelf(blobs, catalog, trusts_paths=False)
    exactly = Reference(version.adapter, number=version.number)
    subject = under_alias(adapter_stored(exactly, blobs=blobs, catalog=catalog), shelf)
    verdict = check(subject, base_called(base, shelf) if base is not None else None, profile)
    if verdict.answer is Answer.DOES_NOT_FIT:
        errors = [finding for finding in verdict.findings if finding.severity is Severity.ERROR]
        raise UnservableError(version.reference, errors)
