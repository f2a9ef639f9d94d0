"""Changes of several adapters, made one by a method that works on the deltas themselves: TIES, DARE and others."""

from __future__ import annotations

from collections.abc import Sequence

from registry.plans.combining import Blend
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merging import Change, Dense, DenseShare

#: Formulas of which a dense delta is made; a bias of B is summed with weights, as in a combination.
_LORA, _SUMMED = "lora", frozenset({"bias"})


def blend_changes(draft: Draft, adapters: Sequence[Ingredient], blend: Blend) -> None:
    """Changes of one target by several adapters become one change; without a method they stay, and add up.

    A target that one adapter alone has is blended as well: DARE drops elements of it, TIES trims it. What replaces a tensor
    stays as it is. Adapters other than LoRA are refused.
    """
    if blend.is_linear:
        return
    draft.require_count(blend, sum(one.weight != 0 for one in adapters))
    for name, changes in draft.changes.items():
        other = next((one for one in changes if one.formula not in {_LORA, *_SUMMED}), None)
        if other is not None:
            draft.refuse(
                "not-combinable",
                f"{adapters[other.adapter].name} changes {name} by {other.formula}, and {blend.method} is about deltas of LoRAs",
                where=name,
                fix="merge it without --method, or extract a LoRA from its own merge",
            )
            return
        draft.changes[name] = _blended(changes, adapters, blend)


def _blended(changes: Sequence[Change], adapters: Sequence[Ingredient], blend: Blend) -> list[Change]:
    groups: dict[object, list[Change]] = {}
    for number, one in enumerate(changes):
        place = (one.path, one.expert, one.start, one.stop, one.transposed, one.first)
        groups.setdefault(place if one.formula == _LORA else number, []).append(one)
    return [group[0] if group[0].formula != _LORA else _one(group, adapters, blend) for group in groups.values()]


def _one(group: Sequence[Change], adapters: Sequence[Ingredient], blend: Blend) -> Change:
    first = group[0]
    shares = tuple(
        DenseShare(
            one.adapter,
            one.factors["down"],
            one.factors["up"],
            adapters[one.adapter].targets[one.path].scaling or 0.0,
            adapters[one.adapter].weight,
        )
        for one in group
    )
    return Change(
        first.adapter,
        "dense",
        {},
        {},
        first.start,
        first.stop,
        first.transposed,
        first.first,
        path=first.path,
        expert=first.expert,
        dense=Dense(blend, first.path, first.expert, shares),
    )
