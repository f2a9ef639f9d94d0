"""Does this adapter fit this base, and will this engine serve it? From tables of names and shapes alone.

1. Read the adapter: a directory, or what the registry recorded of a version.
2. Know the base. One of which only the name is known is compared by name.
3. Run every rule; an error that is allowed by name becomes a warning.
4. The verdict: damaged adapters before misfits, misfits before what could not be checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from registry.checks.identity import other_base, other_revision
from registry.checks.matching import match
from registry.checks.method import is_understood
from registry.checks.misfit import WORDS, Misfit, warning
from registry.checks.profile import Profile
from registry.checks.rule import Subject
from registry.checks.table import RULES, run
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import MERGED, Manifest
from registry.domain.names import Reference
from registry.domain.version import Version
from registry.errors import InvalidInputError, NotFoundError, RegistryError, RejectedError, UnavailableError
from registry.formats.adapter_config import MAX_BYTES, AdapterConfig, parse_adapter_config
from registry.formats.adapter_directory import CONFIG
from registry.formats.base_model_text import NAMELESS
from registry.operations.bases import CheckedBase, Shelf, base_called, base_of
from registry.operations.describe import AdapterPackage, describe
from registry.operations.directory import open_regular
from registry.operations.manifests import manifest_of

if TYPE_CHECKING:
    from registry.blobs.protocol import BlobStore
    from registry.catalog.protocol import Catalog


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter that can be held against a base. ``findings`` are about the adapter itself; ``trained_weights`` is the
    weights fingerprint of the base it records: what was known when a version was pushed, else what the registry knows now."""

    name: str
    manifest: Manifest
    config: AdapterConfig
    findings: tuple[Finding, ...] = ()
    trained_weights: Digest | None = None


#: What a push says that could not be held against a base. It is about the push, and not kept with the version.
NOT_CHECKED = "base-not-checked"


class Answer(StrEnum):
    FITS = "fits"
    DOES_NOT_FIT = "does-not-fit"
    CANNOT_CHECK = "cannot-check"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``matched`` counts those of ``tensors`` that have a place in the base, None where no base is known module by module;
    ``failure`` is the family of errors that the answer belongs to: what is at fault, and with which exit code."""

    subject: str
    base: CheckedBase | None
    profile: str | None
    answer: Answer
    findings: tuple[Finding, ...]
    tensors: frozenset[str]
    matched: int | None
    failure: type[RegistryError] | None

    def document(self) -> dict[str, object]:
        """``check --json``. Keys are only ever added."""
        return {
            "subject": self.subject,
            "base": self.base.document() if self.base else None,
            "profile": self.profile,
            "verdict": self.answer.value,
            "findings": [_document(finding, self.tensors) for finding in self.findings],
            "accounted": {"tensors": len(self.tensors), "matched": self.matched},
        }


def check(
    adapter: CheckedAdapter,
    base: CheckedBase | None = None,
    profile: Profile | None = None,
    *,
    allow: Collection[str] = (),
) -> Verdict:
    """Everything that was noticed. An adapter whose own files contradict each other is broken input, whatever the base."""
    noticed = [_in_earnest(finding) for finding in _own(adapter.findings)]
    spec = base.spec if base else None
    subject = Subject(adapter.manifest, adapter.config, spec, profile, adapter.trained_weights)
    findings = [*noticed, *run(subject)]  # 3
    if base is not None and base.spec is None:
        recorded = adapter.manifest.base_model
        about_base = (other_base(recorded, base.id), other_revision(recorded, base.id), base.problem)
        findings += [finding for finding in about_base if finding is not None]
    unmet = sorted(set(allow) - {finding.rule for finding in findings})
    findings = [_allowed(finding, allow) for finding in findings]
    findings += [
        warning(
            "nothing-to-allow",
            f"--allow {rule} met no finding",
            where=rule,
            fix="leave it away, or look at its spelling",
        )
        for rule in unmet
    ]
    errors = {finding.rule for finding in findings if finding.severity is Severity.ERROR}
    answer = Answer.FITS  # 4
    failure: type[RegistryError] | None = None
    if errors:
        own = {finding.rule for finding in noticed if finding.severity is Severity.ERROR}
        answer, failure = Answer.DOES_NOT_FIT, (InvalidInputError if errors & own else RejectedError)
    elif (base is not None and base.spec is None) or not is_understood(adapter.manifest):
        answer, failure = Answer.CANNOT_CHECK, UnavailableError
    matching = match(subject)
    return Verdict(
        subject=adapter.name,
        base=base,
        profile=profile.name if profile else None,
        answer=answer,
        findings=tuple(findings),
        tensors=frozenset(tensor.name for tensor in adapter.manifest.tensors),
        matched=matching.matched if matching else None,
        failure=failure,
    )


#: Findings of a push that are about the base it was held against then, not about the adapter.
_ABOUT_BASES = {rule.id for rule in RULES}


def against_base(package: AdapterPackage, base: str | None, shelf: Shelf) -> AdapterPackage:
    """The package with what a check against its base notices, and the base's fingerprint; or with a loud word that nobody
    knows the base. ``base`` is a directory; without it the base is the one that the adapter says.

    What is added is a :class:`Misfit`, each.
    """
    recorded = shelf.same_name(package.manifest.base_model)
    asked = base_called(base, shelf, says=recorded.id) if base is not None else base_of(recorded, shelf)
    held = asked.id
    if base is not None and recorded.id is None and asked.id.id is not None:
        package = _named(package, asked.id)
    if base is None:  # it was found by the name that the adapter says
        asked = replace(asked, id=recorded)
    if asked.spec is None:
        message = asked.problem.message if asked.problem else "its base is not known"
        fix = "make the base known once: adapters base add DIR|ID; or push with --base DIR"
        loud = warning(NOT_CHECKED, f"not checked against a base: {message}", where="base_model_name_or_path", fix=fix)
        return replace(package, findings=(*package.findings, loud))
    adapter = under_alias(_of_package(package), shelf)
    is_own = base is None and not (recorded.revision and held.revision and recorded.revision != held.revision)
    weights = adapter.trained_weights or (asked.spec.weights_fingerprint if is_own else None)
    held_against = replace(asked.spec, id=asked.id)
    subject = Subject(adapter.manifest, adapter.config, held_against, trained_weights=adapter.trained_weights)
    noticed = [finding for finding in run(subject) if finding.severity is not Severity.INFO]
    if base is None and not is_own:
        which = f"held against {held.id}@{held.revision}, for want of @{recorded.revision}: "
        noticed = [replace(one, severity=Severity.WARNING, message=which + one.message) for one in noticed]
    return replace(
        package,
        findings=(*_own(package.findings), *noticed),
        fingerprint=asked.spec.fingerprint,
        weights_fingerprint=weights,
    )


def _named(package: AdapterPackage, base: BaseModelId) -> AdapterPackage:
    """With the base that it was held against, where its config says none that anybody could find."""
    recorded = replace(package.manifest.base_model, id=base.id, revision=base.revision)
    manifest = replace(package.manifest, base_model=recorded)
    findings = tuple(finding for finding in package.findings if finding.rule not in NAMELESS)
    return replace(package, manifest=manifest, findings=findings)


def _own(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Without what a rule says again here, and better, since it knows the base: whether biases were lost."""
    return (finding for finding in findings if finding.rule not in _ABOUT_BASES)


def under_alias(adapter: CheckedAdapter, shelf: Shelf) -> CheckedAdapter:
    """With its base under the name that this registry's aliases give it, and what the registry knows of its weights, unless
    the version itself says them."""
    base_model = shelf.same_name(adapter.manifest.base_model)
    manifest = replace(adapter.manifest, base_model=base_model)
    return replace(adapter, manifest=manifest, trained_weights=adapter.trained_weights or shelf.weights_of(base_model))


def adapter_in(directory: Path) -> CheckedAdapter:
    """Raises InvalidInputError, as a push of it would."""
    return _of_package(describe(directory))  # 1


def _of_package(package: AdapterPackage) -> CheckedAdapter:
    path = next(package.paths[entry.digest] for entry in package.manifest.files if entry.path == CONFIG)
    with open_regular(path) as file:
        config = parse_adapter_config(file.read(MAX_BYTES + 1), where=str(path))
    return CheckedAdapter(str(package.directory), package.manifest, config, package.findings)


def adapter_stored(reference: Reference, *, blobs: BlobStore, catalog: Catalog) -> CheckedAdapter:
    """A version as it was recorded, with the findings of its push. Raises NotFoundError, CorruptionError."""
    version = catalog.resolve(reference)
    manifest = manifest_of(version.digest, blobs)
    digest = next((entry.digest for entry in manifest.files if entry.path == CONFIG), None)
    require_adapter(version.reference, manifest)
    if digest is None:
        raise NotFoundError(f"{version.reference} has no {CONFIG}", hint="push the adapter again")
    config = parse_adapter_config(b"".join(blobs.read(digest)), where=CONFIG)
    recorded = version.summary.base_model
    manifest = replace(manifest, base_model=replace(manifest.base_model, fingerprint=recorded.fingerprint))
    own = tuple(finding for finding in version.findings if finding.rule not in _ABOUT_BASES)
    return CheckedAdapter(version.reference, manifest, config, own, recorded_weights(version))


def recorded_weights(version: Version) -> Digest | None:
    """The weights fingerprint of its base, as it was known when the version was pushed."""
    weights = version.summary.base_model.weights_fingerprint
    return Digest(weights) if weights else None


def require_adapter(reference: str, manifest: Manifest) -> None:
    """Raises InvalidInputError for a checkpoint that adapters were merged into."""
    if manifest.peft_type == MERGED:
        raise InvalidInputError(
            f"{reference} is a merged checkpoint, no adapter",
            code="not-an-adapter",
            hint="`adapters show` lists the adapters that it was made of",
        )


def _in_earnest(finding: Finding) -> Finding:
    """A pattern that nobody could evaluate is no reason to lose an adapter; but that it fits nobody can say either."""
    return replace(finding, severity=Severity.ERROR) if finding.rule == "pattern-unresolved" else finding


def _allowed(finding: Finding, allow: Collection[str]) -> Finding:
    if finding.severity is Severity.ERROR and finding.rule in allow:
        return replace(finding, severity=Severity.WARNING, message=f"allowed: {finding.message}")
    return finding


def _document(finding: Finding, tensors: Collection[str]) -> dict[str, str | None]:
    detail = finding if isinstance(finding, Misfit) else None
    return {
        "rule": finding.rule,
        "severity": WORDS[finding.severity],
        "target": detail.target if detail else None,
        "tensor": finding.where if finding.where in tensors else None,
        "message": finding.message,
        "expected": detail.expected if detail else None,
        "found": detail.found if detail else None,
        "fix": finding.fix,
    }
