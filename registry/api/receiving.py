"""Versions that a command line elsewhere has described: what it says is not believed, but read again from the blobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.domain.base_model import StoredBase
from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import MERGED, Manifest, parse_manifest
from registry.domain.names import AdapterName
from registry.errors import CorruptionError, InvalidInputError, MissingBlobError, NotFoundError
from registry.operations.bases import stored_spec
from registry.operations.check import against_base
from registry.operations.describe import AdapterPackage, describe
from registry.operations.merged_version import require_merged
from registry.operations.publish import kept_findings, refuse_errors
from registry.operations.receive import laid_out

if TYPE_CHECKING:
    from starlette.requests import Request

    from registry.api.arguments import AddVersion
    from registry.api.callers import Caller
    from registry.api.descriptions import Descriptions
    from registry.api.possessions import Possessions
    from registry.catalog.protocol import CatalogWriter
    from registry.domain.version import Version


@dataclass(frozen=True, slots=True)
class Received:
    """A version that was read and found to be what it says: it is left to enter it."""

    adapter: AdapterName
    manifest: Manifest
    note: str | None
    findings: Sequence[Finding]
    fingerprint: Digest | None = None
    weights_fingerprint: Digest | None = None


class Receiver:
    """For one caller's transaction."""

    def __init__(self, caller: Caller, possessions: Possessions, descriptions: Descriptions) -> None:
        self.caller = caller
        self._possessions = possessions
        self._descriptions = descriptions

    def require_usable(self, digests: Sequence[Digest]) -> None:
        """Raises NotFoundError for bytes that the caller neither sent nor may read: the same as for bytes nobody has."""
        for digest in digests:
            try:
                self._possessions.size(self.caller, digest)
            except MissingBlobError:
                raise NotFoundError(f"{digest} was not uploaded", code="not-uploaded", hint="upload it first") from None

    def require_base(self, base: StoredBase) -> None:
        self.require_usable([base.digest])
        stored_spec(base, self.caller.registry.blobs)

    def received(self, given: AddVersion) -> Received:
        """The version that was described, as far as it is what the blobs make; reads every byte of it, if nobody did just now, so
        this is no work for a transaction. Raises InvalidInputError, DefectiveAdapterError, MisfitError."""
        adapter, manifest = given.adapter, _parsed(given.manifest)
        self.require_usable([manifest.digest, *(entry.digest for entry in manifest.files)])
        claimed = [Finding(**noticed.model_dump()) for noticed in given.findings]
        if manifest.peft_type == MERGED:
            files = {entry.path: entry.digest for entry in manifest.files}
            with laid_out(files, self.caller.registry.blobs, called=str(adapter)) as directory:
                require_merged(directory, manifest)
            return Received(adapter, manifest, given.note, claimed)
        allowed = [finding.rule for finding in claimed if finding.severity is Severity.ERROR]
        key = (self.caller.registry.catalog.generation(), manifest.digest, str(adapter), tuple(allowed))
        package = self._descriptions.of(key, lambda: self._described(manifest, str(adapter), allowed))
        return Received(
            adapter,
            package.manifest,
            given.note,
            _said(package, claimed),
            package.fingerprint or given.fingerprint,
            package.weights_fingerprint or given.weights_fingerprint,
        )

    def add_version(self, writer: CatalogWriter, received: Received) -> tuple[Version, bool]:
        """Raises MissingBlobError for what a collector took meanwhile."""
        manifest = received.manifest
        for digest in (manifest.digest, *(entry.digest for entry in manifest.files)):
            self.caller.registry.blobs.size(digest)
        return writer.add_version(
            received.adapter,
            manifest,
            note=received.note,
            fingerprint=received.fingerprint,
            weights_fingerprint=received.weights_fingerprint,
            findings=received.findings,
        )

    def _described(self, manifest: Manifest, called: str, allowed: Sequence[str]) -> AdapterPackage:
        registry = self.caller.registry
        stated = manifest.base_model
        override = None if stated.id is None else f"{stated.id}@{stated.revision}" if stated.revision else stated.id
        with laid_out(
            {entry.path: entry.digest for entry in manifest.files}, registry.blobs, called=called
        ) as directory:
            for base in (None, override):
                package = describe(directory, base=base, lineage=manifest.lineage)
                stated_too = replace(package.manifest, training=manifest.training)  # how it came about no file proves
                if stated_too.digest == manifest.digest:
                    checked = against_base(replace(package, manifest=stated_too), None, registry.shelf())
                    refuse_errors(checked, allowed)
                    return checked
        raise InvalidInputError(
            f"the manifest of {called} is not what its files make",
            code="manifest-differs",
            hint="is the server of another version? Then upgrade one of the two",
        )


def receiver_for(caller: Caller, request: Request) -> Receiver:
    state = request.app.state
    return Receiver(caller, state.possessions, state.descriptions)


def _parsed(text: str) -> Manifest:
    """Raises InvalidInputError, also for a document that no journal and no answer could hold."""
    try:
        manifest = parse_manifest(text.encode("ascii"))
        json.dumps(json.loads(manifest.canonical_bytes), ensure_ascii=False).encode()
    except (CorruptionError, RecursionError, ValueError) as error:
        raise InvalidInputError("that is no manifest", code="manifest-differs") from error
    return manifest


def _said(package: AdapterPackage, claimed: Sequence[Finding]) -> list[Finding]:
    """What was noticed here; and what was noticed there about a base that only the other side knows."""
    here = kept_findings(package.findings)
    known = {finding.rule for finding in here}
    return here + ([] if package.fingerprint else [finding for finding in claimed if finding.rule not in known])
