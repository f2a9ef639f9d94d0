"""Whole tensors that PEFT drops although their module is in the base: of no parameter, or under a name that PEFT gave away.

PEFT wraps what it adapts: ``q_proj.bias`` of the base is ``q_proj.base_layer.bias`` then, and the plain name means nothing any
more. What it does not adapt keeps its plain name, and ``base_layer`` means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.heads import VOCABULARY
from registry.checks.matching import Matching, match, path_of
from registry.checks.misfit import misfit
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity
from registry.variants.lora import MARK
from registry.variants.settings import saved_modules
from registry.variants.tensor_names import PREFIX
from registry.variants.token_rows import DELTA

_FIX = "rename the tensor as the finding says, or remove it"
#: Tails that a module has without a parameter of that name in the table of modules.
_OF_ATTENTION = frozenset({"in_proj_weight", "in_proj_bias"})


def _strays(subject: Subject) -> Iterator[Finding]:
    """Of modules that nobody declared; those that are saved whole PEFT reads by other rules."""
    matching = match(subject)
    if matching is None or subject.manifest.peft_type != "LORA":
        return
    extra = frozenset(subject.manifest.extra_modules)
    declared = saved_modules(subject.config)
    wrapped = _wrapped(subject)
    for spec in subject.manifest.tensors:
        module, _, tail = path_of(spec.name).rpartition(".")
        if module not in extra or tail == DELTA or tail.startswith(MARK) or module.endswith(declared or ("\0",)):
            continue
        if module in matching.homes and not _has(matching, module, tail):
            yield _stray(spec.name, module, f"{module} in the base has no {tail}", Severity.ERROR)
            continue
        right = _name(module, tail, wrapped)
        if right != spec.name:
            copy = tail == "weight" and module.rpartition(".")[2] in VOCABULARY
            severity = Severity.WARNING if copy else Severity.ERROR  # of an embedding it may be the base's own
            yield _stray(spec.name, module, f"what it reads here is {right}", severity)


def _wrapped(subject: Subject) -> dict[str, str]:
    """What PEFT puts between a module and its parameters, by the module's path."""
    found = {target.path: "base_layer." for target in subject.manifest.targets}
    for spec in subject.manifest.tensors:
        path, dot, _ = spec.name.removeprefix(PREFIX).partition(".token_adapter.")
        if dot:
            found[path] = "token_adapter.base_layer."
    return found


def _name(module: str, tail: str, wrapped: dict[str, str]) -> str:
    return f"{PREFIX}{module}.{wrapped.get(module, '')}{tail}"


def _has(matching: Matching, module: str, tail: str) -> bool:
    """A bias may belong to a module without a weight; whether a module has one is another rule's question."""
    if tail == "bias" or tail in _OF_ATTENTION:
        return True
    known = matching.module(module) if tail == "weight" else None
    return known is not None or matching.module(f"{module}.{tail}") is not None


def _stray(name: str, module: str, why: str, severity: Severity) -> Finding:
    return misfit(
        severity,
        "unmatched-tensor",
        f"{name} is loaded into nothing, and PEFT drops it without a word: {why}",
        where=name,
        target=module,
        found=name,
        fix=_FIX,
    )


UNMATCHED_TENSOR = Rule(
    "unmatched-tensor",
    Severity.ERROR,
    "A whole tensor without a parameter of its name is dropped on load without a word, and what it was trained to do is lost.",
    _FIX,
    _strays,
)
