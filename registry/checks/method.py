"""Is it a method whose tensors are understood? Of another one nobody can say what it would do to a base."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.misfit import warning
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
from registry.variants.table import ANATOMIES

_FIX = "correct peft_type if it is misspelt; otherwise load the adapter onto its base with what trained it"


def is_understood(manifest: Manifest) -> bool:
    """Whether the tensors can be held against a base."""
    return manifest.peft_type in ANATOMIES


def _unknown(subject: Subject) -> Iterator[Finding]:
    if not is_understood(subject.manifest):
        yield warning(
            "method-unknown",
            f"peft_type is {subject.manifest.peft_type:.80}, and PEFT 0.21 has no such method: the adapter's tensors "
            "were compared with nothing",
            where="adapter_config.json",
            expected="a method of PEFT, such as LORA",
            found=subject.manifest.peft_type,
            fix=_FIX,
        )


METHOD_UNKNOWN = Rule(
    "method-unknown",
    Severity.WARNING,
    "What the tensors of an unknown method do to a base nobody can say, so that the verdict is that it could not be checked.",
    _FIX,
    _unknown,
)
