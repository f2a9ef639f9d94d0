"""How serving rules speak: what they notice, in which words, and what an engine makes of a feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from registry.checks.profile import Profile
from registry.checks.rule import Subject
from registry.checks.serving_features import use_of
from registry.domain.finding import Severity
from registry.domain.tensors import TensorSpec
from registry.variants.findings import some


class Noticed(NamedTuple):
    """A finding that does not know its rule yet."""

    severity: Severity
    message: str
    where: str
    fix: str


Check = Callable[[Subject, Profile], Iterator[Noticed]]


class Stance(NamedTuple):
    """What an engine makes of a feature. The words of a refusal are its own, the others are ours."""

    severity: Severity
    verb: str
    words: str
    is_refusal: bool = False

    def said(self, **values: object) -> str:
        return quoted(self.words, **values) if self.is_refusal else f": {_filled(self.words, values)}"


#: The way out where merging is none.
_NOT_MERGEABLE = {
    "alora": "serve it with llama.cpp or PEFT; it acts from its invocation on, so it cannot be merged",
    "arrow": "serve it with PEFT; a router cannot be merged",
    "qalora": "serve it with PEFT; it cannot be merged",
    "layer_replication": "merge it into a copy of the base whose layers are replicated",
    "added_tokens": "leave added_tokens.json out if the base has these tokens already; otherwise merge",
    "no_base": "push the adapter with --base, or name the base to the engine",
}
_WITHOUT_FIELD = {
    "half_experts": "only one of gate_up_proj and down_proj is adapted",
    "no_base": "the adapter names no base model",
    "added_tokens": "added_tokens.json is among the files",
}


def stance_of(profile: Profile, feature: str, *, declared: bool, present: bool) -> Stance | None:
    """How grave it is, what the engine does, and its words."""
    if declared and feature in profile.refuses_config:
        return Stance(Severity.ERROR, "refuses", profile.refuses_config[feature], is_refusal=True)
    if present and feature in profile.refuses_tensors:
        return Stance(Severity.ERROR, "refuses", profile.refuses_tensors[feature], is_refusal=True)
    if present and feature in profile.ignores:
        verb = "drops" if profile.engine == "peft" else "leaves out without a word"
        return Stance(Severity.ERROR, verb, profile.ignores[feature])
    if present and feature in profile.doubtful:
        return Stance(Severity.WARNING, "may not serve as PEFT does", profile.doubtful[feature])
    return None


def about(*features: str) -> Check:
    """The check that asks for features alone."""

    def check(subject: Subject, profile: Profile) -> Iterator[Noticed]:
        for feature in features:
            use = use_of(subject, feature)
            stance = stance_of(profile, feature, declared=use.field is not None, present=use.is_present)
            if stance is None:
                continue
            declared = f"{use.field} is set" if use.field else f"the file has {names_of(use.tensors)}"
            fix = profile.way_out if profile.engine == "peft" else _NOT_MERGEABLE.get(feature, profile.way_out)
            if feature == "bias" and not use.is_present:
                fix = f'no bias is in the file: {export(profile)} writes bias "none"'
            yield Noticed(
                stance.severity,
                f"{_WITHOUT_FIELD.get(feature, declared)}, which {profile.title} {stance.verb}"
                f"{stance.said(name=use.first or '…')}",
                use.field or use.first,
                fix,
            )

    return check


def quoted(words: str, **values: object) -> str:
    """``: "what the engine says"``, with its braces filled in."""
    return f': "{_filled(words, values)}"' if words else ""


def _filled(words: str, values: Mapping[str, object]) -> str:
    for key, value in values.items():
        words = words.replace(f"{{{key}}}", str(value))
    return words


def names_of(tensors: Iterable[TensorSpec]) -> str:
    return some([spec.name for spec in tensors])


def export(profile: Profile) -> str:
    return f"`adapters export REF --for {profile.engine} -o DIR`"
