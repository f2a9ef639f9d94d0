"""Has every target a place in the base? PEFT drops what has none without a word, and the adapter does less."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from registry.checks.matching import Drift, Matching, match
from registry.checks.misfit import error
from registry.checks.rule import Rule, Subject
from registry.domain.finding import Finding, Severity
from registry.variants.findings import some
from registry.variants.settings import layer_spans

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
#: Names looked through for a similar one; a base has a few dozen once its numbers are put aside.
_MOST_SHAPES = 2000


def _no_match(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None or not subject.manifest.targets:
        return
    paths = [target.path for target in subject.manifest.targets]
    if not any(path in matching.homes or path in matching.brought for path in paths):
        yield error(
            "no-match",
            f"none of the adapter's {len(paths):,} targets is in the base, so it would change nothing: {some(paths)}",
            target=paths[0],
            expected=some([module.path for module in matching.places.base.modules]),
            found=paths[0],
            fix="check against the base it was trained on" if not matching.drifts else "see prefix-drift",
        )


def _prefix_drift(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    for drift in matching.drifts if matching is not None else ():
        yield error(
            "prefix-drift",
            f"{len(drift.paths):,} {'target is' if len(drift.paths) == 1 else 'targets are'} called "
            f"{_shown(drift.written)} and the base has {'them' if len(drift.paths) > 1 else 'it'} under "
            f"{' or '.join(_shown(start) for start in drift.needed)}: {some(drift.paths)}",
            target=drift.paths[0],
            expected=" or ".join(start + drift.paths[0].removeprefix(drift.written) for start in drift.needed),
            found=drift.paths[0],
            fix=_mapping(drift),
        )


def _mapping(drift: Drift) -> str:
    if len(drift.needed) > 1:
        return "several parts of the base have such modules; train or convert the adapter for the class that is served"
    return (
        f"rename the tensors, base_model.model.{drift.written}… to base_model.model.{drift.needed[0]}…, if the part of "
        "the model is the same; or load the class that the adapter was trained on"
    )


def _shown(start: str) -> str:
    return f"{start}…" if start else "without a prefix"


def _unmatched(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    hints: dict[str, str | None] = {}
    for path in matching.misplaced:
        hint = _hint(path, matching, hints)
        yield error(
            "unmatched-target",
            f"{path:.200} is not in the base{f'; {hint}' if hint else ''}",
            target=path,
            expected=hint,
            found=path,
            fix="check against the base it was trained on; PEFT would drop these tensors without a word",
        )


def _hint(path: str, matching: Matching, known: dict[str, str | None]) -> str | None:
    """What is nearest: the same module in other layers, or a module of a similar name."""
    shape = _NUMBER.sub("*", path)
    if shape not in known:
        names = [matching.places.spelled(name, matching.prefix) for name in matching.places.by_name]
        known[shape] = _layers(shape, names) or _similar(shape, names)
    return known[shape]


def _layers(shape: str, names: Iterable[str]) -> str | None:
    numbers = [int(found[0]) for name in names if (found := _NUMBER.findall(name)) and _NUMBER.sub("*", name) == shape]
    return f"the base has it in the layers {min(numbers)} to {max(numbers)}" if numbers else None


def _similar(shape: str, names: Iterable[str]) -> str | None:
    shapes = list(dict.fromkeys(_NUMBER.sub("*", name) for name in names))[:_MOST_SHAPES]
    near = get_close_matches(shape, shapes, n=1, cutoff=0.6)
    return f"the nearest name is {near[0]}" if near else None


def _replicated_beyond(subject: Subject) -> Iterator[Finding]:
    """``layer_replication`` copies layers that the base has to have, in the part of the model that the adapter is in."""
    matching, spans = match(subject), layer_spans(subject.config)
    if matching is None or not spans:
        return
    parts = {home[: found.start()] for home in matching.homes.values() if (found := _NUMBER.search(home))}
    numbers = [
        int(found[0])
        for name in matching.places.by_name
        if (found := _NUMBER.search(name)) and name[: found.start()] in parts and len(found[0]) < 9
    ]
    depth, highest = max(numbers, default=-1) + 1, max(end for _, end in spans)
    if numbers and highest > depth:
        yield error(
            "replication-beyond-base",
            f"layer_replication copies layers up to {highest - 1:,}, and the base has {depth:,}: PEFT cannot load the adapter",
            where="layer_replication",
            expected=f"layers 0 to {depth - 1}",
            found=str(highest - 1),
            fix="check against the base it was trained on",
        )


NO_MATCH = Rule(
    "no-match",
    Severity.ERROR,
    "PEFT loads an adapter that has no place in the base without an error, and the model answers as if it were absent.",
    "Check against the base it was trained on.",
    _no_match,
)
PREFIX_DRIFT = Rule(
    "prefix-drift",
    Severity.ERROR,
    "Text and multimodal classes, and backbones with and without a head, name the same modules differently.",
    "Rename the tensors as the finding says, or load the class that the adapter was trained on.",
    _prefix_drift,
)
UNMATCHED_TARGET = Rule(
    "unmatched-target",
    Severity.ERROR,
    "A target that the base lacks is dropped on load without a word, and the adapter does less than was trained.",
    "Check against the base it was trained on.",
    _unmatched,
)
REPLICATION_BEYOND = Rule(
    "replication-beyond-base",
    Severity.ERROR,
    "An adapter on copied layers needs the layers that were copied, or it does not load.",
    "Check against the base it was trained on.",
    _replicated_beyond,
)
