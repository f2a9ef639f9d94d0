"""What can be served and never merged, said before somebody tries."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.misfit import note
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest

_VARIANTS = {
    "alora": "it acts from its invocation tokens on, so there is no one weight for all positions",
    "arrow": "a router chooses between several adapters for each token",
    "qalora": "it reads pooled inputs of a quantised base",
}
_METHODS = {
    "ADAPTION_PROMPT": "it adds a gated attention of its own",
    "CARTRIDGE": "it is a prompt, not a change of weights",
    "CPT": "it is a prompt, not a change of weights",
    "LILY": "a router mixes its factors for each token",
    "MULTITASK_PROMPT_TUNING": "it is a prompt, not a change of weights",
    "POLY": "the task at hand chooses between its modules",
    "PREFIX_TUNING": "it is a prompt, not a change of weights",
    "PROMPT_TUNING": "it is a prompt, not a change of weights",
    "P_TUNING": "it is a prompt, not a change of weights",
    "SHADOW": "it runs beside the model",
    "XLORA": "a router chooses between several adapters for each token",
}


def unmergeable(manifest: Manifest) -> str | None:
    """Why the method is no change of weights; None for one that is."""
    return _VARIANTS.get(manifest.variant) or _METHODS.get(manifest.peft_type)


def _not_mergeable(subject: Subject) -> Iterator[Finding]:
    manifest = subject.manifest
    why = unmergeable(manifest)
    if why is not None:
        yield note(
            "not-mergeable",
            f"{manifest.peft_type} ({manifest.variant}) cannot be merged into the base: {why}",
            where="adapter_config.json",
            fix="serve it with PEFT, or with an engine that knows the method",
        )


def _quantized(subject: Subject) -> Iterator[Finding]:
    if subject.base is not None and subject.base.is_quantized:
        yield note(
            "quantized-base",
            "the base is quantised: merging into it would round the change away, and most engines refuse",
            where="config.json",
            fix="merge into the base before it was quantised, or serve the adapter unmerged",
        )


NOT_MERGEABLE = Rule(
    "not-mergeable",
    Severity.INFO,
    "Some methods are no change of weights, so that no merged checkpoint can do what they do.",
    "Serve it with PEFT, or with an engine that knows the method.",
    _not_mergeable,
)
QUANTIZED_BASE = Rule(
    "quantized-base",
    Severity.INFO,
    "A merge into quantised weights is rounded to their few levels.",
    "Merge into the base before it was quantised.",
    _quantized,
)
