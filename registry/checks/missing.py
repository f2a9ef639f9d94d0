"""Kinds of modules that the config chooses and the adapter has nowhere: all ``k_proj`` lost, of an expression that means them; or
all of a shared expert, of names that the other experts have as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from registry.checks.brought import HEADS
from registry.checks.matching import Matching, match
from registry.checks.misfit import warning
from registry.checks.parts import sure_of
from registry.checks.places import in_memory, upwards
from registry.checks.rule import Rule, Subject
from registry.checks.selection import chooser
from registry.checks.stacks import is_taken_apart
from registry.domain.base_model import ModuleKind
from registry.domain.finding import Finding, Severity
from registry.variants.findings import some
from registry.variants.settings import saved_modules
from registry.variants.wanted import is_all_linear

_FIX = "check against the base it was trained on, or save the adapter again"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_LINEAR = frozenset({ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.PACKED})
#: What PEFT has layers for.
_ADAPTED = _LINEAR | {ModuleKind.EMBEDDING, ModuleKind.CONV}
#: Routers: two-dimensional weights, and no linear layers to PEFT.
_ROUTERS = frozenset({"gate", "router"})


def _kinds_without(subject: Subject) -> Iterator[Finding]:
    """Of a listed name that nothing has absent-target speaks; of single layers layer-without-tensors does, but for
    ``all-linear``."""
    matching, asked = match(subject), subject.config.names("target_modules")
    if matching is None or not asked or not matching.layers:
        return
    is_linear = is_all_linear(asked)
    chosen = _not_head if is_linear else chooser(subject.config)
    if chosen is not None:
        absent = tuple(f".{name}" for name in subject.manifest.absent_targets)
        found = _missing(subject, matching, chosen, is_linear=is_linear)
        missing = [path for path in found if not f".{path}".endswith(absent)]
        if missing:
            yield warning(
                "kind-without-tensors",
                f"target_modules is {_shown(asked)}, which chooses {some(missing)} of the base, and the file has no tensors "
                f"of {'it' if len(missing) == 1 else 'them'}: part of the adapter is missing, or the base is another one",
                where="target_modules",
                target=missing[0],
                expected=some(missing),
                found="none",
                fix=_FIX,
            )


def _shown(asked: Sequence[str] | str) -> str:
    return f"{asked!r:.80}" if isinstance(asked, str) else some([repr(name) for name in asked])


def _missing(subject: Subject, matching: Matching, chosen: Callable[[str], bool], *, is_linear: bool) -> Iterator[str]:
    """One path for each kind. What is saved whole PEFT does not adapt."""
    kinds = _LINEAR if is_linear else _ADAPTED
    places, is_sure = matching.places, sure_of(subject, matching)
    model_type = places.base.model_type
    homes = {in_memory(matching.homes[path], model_type) for path in matching.layers if path in matching.homes}
    seen = set() if is_linear else {_NUMBER.sub("*", home) for home in homes}
    saved = saved_modules(subject.config) or ("\0",)
    for name, module in places.by_name.items():
        shape = _NUMBER.sub("*", name)
        if name in homes or shape in seen or module.kind not in kinds or ".experts." in name:
            continue
        if in_memory(name, model_type) != name or is_taken_apart(name, model_type) or places.is_beyond(name):
            continue
        path = places.spelled(name, matching.prefix)
        if chosen(path) and is_sure(path) and not any(above.endswith(saved) for above in upwards(path)):
            seen.add(shape)
            yield path


def _not_head(path: str) -> bool:
    """``all-linear``: every linear layer of the layers but the output embedding and the heads of classifiers."""
    words = path.split(".")
    return _NUMBER.search(path) is not None and HEADS.isdisjoint(words) and words[-1] not in _ROUTERS


KIND_WITHOUT_TENSORS = Rule(
    "kind-without-tensors",
    Severity.WARNING,
    "An adapter that lost all tensors of one kind of module loads all the same and does less.",
    _FIX,
    _kinds_without,
)
