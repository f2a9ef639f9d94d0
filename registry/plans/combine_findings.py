"""What is said of a combination that can be made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from registry.checks.misfit import Misfit, warning
from registry.plans.combining import CombinePlan
from registry.plans.merge_draft import Ingredient
from registry.variants.findings import some

_NUMBERED = re.compile(r"(?P<above>(?:.*?\.)??)(?P<layer>[^.]+\.\d+\..+)")


def remarks(plan: CombinePlan, adapters: Sequence[Ingredient]) -> Iterator[Misfit]:
    yield from _whole_anyway(plan)
    yield from _called_otherwise(adapters)


def _whole_anyway(plan: CombinePlan) -> Iterator[Misfit]:
    """What replaces the base's does so whole, whatever the weights, of which there would be a share only with the base at hand."""
    names = [one.spec.name for one in plan.passed if one.is_replacement and abs(one.weight - 1) > 1e-9]
    if names:
        yield warning(
            "weight-without-effect",
            f"{some(names)} {'replaces' if len(names) == 1 else 'replace'} the base's whole, as in the adapters; their weights, "
            "which do not add up to 1, have no effect there",
            where=names[0],
            fix="give weights that add up to 1, or merge the adapters into the base",
        )


def _called_otherwise(adapters: Sequence[Ingredient]) -> Iterator[Misfit]:
    """The same layers below different modules: versions of transformers, and a language model alone or within another, name them
    differently, and PEFT would load the factors of one and pass over the other's."""
    for one, other in combinations((one for one in adapters if one.weight != 0), 2):
        ours, theirs = (_layers(each.targets) for each in (one, other))
        shared = next((layer for layer in ours if layer in theirs), None)
        if shared is not None and set().union(*ours.values()).isdisjoint(set().union(*theirs.values())):
            yield warning(
                "layers-called-otherwise",
                f"{one.name} has {min(ours[shared])}{shared} and {other.name} {min(theirs[shared])}{shared}: if both mean the same "
                "layer, a model has only one of these names, and the other's factors are not loaded",
                where=f"{min(theirs[shared])}{shared}",
                fix="if they are the same, train or convert both for one version of transformers and one model class",
            )


def _layers(paths: Iterable[str]) -> dict[str, set[str]]:
    """By name from the first numbered layer on (``layers.0.self_attn.q_proj``), what stands before it."""
    found: dict[str, set[str]] = {}
    for match in map(_NUMBERED.fullmatch, paths):
        if match:
            found.setdefault(match["layer"], set()).add(match["above"])
    return found
