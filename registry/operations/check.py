"""Does this adapter fit this base, and will this engine serve it? From tables of names and shapes alone.

1. Read the adapter: a directory, or what the registry recorded of a version.
2. Know the base. One of which only the name is known is compared by name.
3. Run every rule; an error that is allowed by name becomes a warning.
4. The verdict: damaged adapters before misfits, misfits before what could not be checked.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.checks.identity import other_base
from registry.checks.matching import match
from registry.checks.misfit import WORDS, Misfit, warning
from registry.checks.profile import Profile
from registry.checks.rule import Subject
from registry.checks.table import run
from registry.domain.base_model import BaseModelId, BaseModelSpec
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
from registry.domain.names import Reference
from registry.errors import InvalidInputError, NotFoundError, RegistryError, RejectedError, UnavailableError
from registry.formats.adapter_config import MAX_BYTES, AdapterConfig, parse_adapter_config
from registry.formats.adapter_directory import CONFIG
from registry.formats.base_model_text import resolve_base
from registry.operations.describe import describe
from registry.operations.directory import open_regular
from registry.operations.know_base import know_base
from registry.operations.manifests import manifest_of


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter that can be held against a base. ``findings`` are about the adapter itself."""

    name: str
    manifest: Manifest
    config: AdapterConfig
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckedBase:
    """A base as far as it is known: with ``spec`` module by module, else by its name, and ``problem`` says why."""

    id: BaseModelId
    spec: BaseModelSpec | None = None
    problem: Finding | None = None

    def document(self) -> dict[str, object]:
        spec = self.spec
        return {
            **self.id.document(),
            "model_type": spec.model_type if spec else None,
            "architectures": list(spec.architectures) if spec else [],
            "modules": len(spec.modules) if spec else None,
            "quantized": spec.is_quantized if spec else None,
            "weights_fingerprint": spec.weights_fingerprint if spec else None,
        }


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
    subject = Subject(adapter.manifest, adapter.config, base.spec if base else None, profile)
    findings = [*adapter.findings, *run(subject)]  # 3
    if base is not None and base.spec is None:
        misnamed = other_base(adapter.manifest.base_model, base.id)
        findings += [finding for finding in (misnamed, base.problem) if finding is not None]
    findings = [_allowed(finding, allow) for finding in findings]
    errors = {finding.rule for finding in findings if finding.severity is Severity.ERROR}
    answer = Answer.FITS  # 4
    failure: type[RegistryError] | None = None
    if errors:
        own = {finding.rule for finding in adapter.findings if finding.severity is Severity.ERROR}
        answer, failure = Answer.DOES_NOT_FIT, (InvalidInputError if errors & own else RejectedError)
    elif base is not None and base.spec is None:
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


def adapter_in(directory: Path) -> CheckedAdapter:
    """Raises InvalidInputError, as a push of it would."""
    package = describe(directory)  # 1
    with open_regular(directory / CONFIG) as file:
        config = parse_adapter_config(file.read(MAX_BYTES + 1), where=str(directory / CONFIG))
    return CheckedAdapter(str(directory), package.manifest, config, package.findings)


def adapter_stored(reference: Reference, *, blobs: BlobStore, catalog: Catalog) -> CheckedAdapter:
    """A version as it was recorded, with the findings of its push. Raises NotFoundError, CorruptionError."""
    version = catalog.resolve(reference)
    manifest = manifest_of(version.digest, blobs)
    digest = next((entry.digest for entry in manifest.files if entry.path == CONFIG), None)
    if digest is None:
        raise NotFoundError(f"{version.reference} has no {CONFIG}", hint="push the adapter again")
    config = parse_adapter_config(b"".join(blobs.read(digest)), where=CONFIG)
    return CheckedAdapter(version.reference, manifest, config, tuple(version.findings))


def base_called(text: str) -> CheckedBase:
    """A directory, read; or a repository's name, ``[hf://]OWNER/NAME[@REVISION]``, of which no more is known here.

    Raises UnsuitableDirectoryError and MalformedFileError for a directory that holds no sound checkpoint.
    """
    if os.path.isdir(text) or text.startswith((".", "/", "~")):  # 2
        directory = Path(text).expanduser()
        try:
            spec = know_base(directory)
        except UnavailableError as error:
            identity, _ = resolve_base(str(directory.absolute()), None)
            return CheckedBase(replace(identity, raw=text), problem=_unknown(error.message, error.hint))
        return CheckedBase(spec.id, spec)
    name, _, revision = text.removeprefix("hf://").partition("@")
    identity, _ = resolve_base(name, revision or None)
    message = f"{text} is not a directory here, so only its name was compared, not its modules and shapes"
    return CheckedBase(identity, problem=_unknown(message, "give the directory of a checkpoint: --base DIR"))


def _unknown(message: str, hint: str | None) -> Misfit:
    return warning("base-shapes-unknown", message, fix=hint or "give the directory of a checkpoint: --base DIR")


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
