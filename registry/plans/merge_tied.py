"""Input and output embedding that are one matrix: whether they still are after the merge.

Two sides share a matrix in the base. Where an adapter changes one side only, or both differently, the output needs two
matrices, and its config has to say so; PEFT 0.21 merges the change of one side into both. Where both sides change alike
(``ensure_weight_tying``, single tokens) they stay one, changed once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from registry.checks.heads import VOCABULARY
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merging import Origin, TokenRows

#: What the output embedding is called on disk; ``lm_head`` elsewhere.
_HEADS = {
    "albert": "predictions.decoder",
    "bert": "cls.predictions.decoder",
    "camembert": "lm_head.decoder",
    "distilbert": "vocab_projector",
    "electra": "generator_lm_head",
    "gpt_neox": "embed_out",
    "roberta": "lm_head.decoder",
    "xlm-roberta": "lm_head.decoder",
}
#: Ends of the classes that have one.
_GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining")

#: Models that scale the output if, and only if, the two sides are tied: with two matrices they say something else.
SCALED = frozenset({"longt5", "mt5", "pop2piano", "switch_transformers", "t5", "udop", "umt5"})

_Held = TypeVar("_Held", Origin, TokenRows)


@dataclass(frozen=True, slots=True)
class Tie:
    """The stored names of the two sides: ``head`` is not stored as long as they are one."""

    embedding: str
    head: str


def tie_of(base: BaseModelSpec, draft: Draft) -> Tie | None:
    """None where the base has two matrices, or none for the output."""
    if not base.is_tied or not any(name.endswith(_GENERATORS) for name in base.architectures):
        return None
    found = [
        spec
        for module in base.modules
        if module.kind is ModuleKind.EMBEDDING and module.path.rpartition(".")[2] in VOCABULARY
        for spec in (draft.stored(module),)
        if spec is not None and base.vocabulary in (None, spec.shape[0])
    ]
    shared = [spec for spec in found if spec.name.endswith("shared.weight")] or found
    if not shared:
        return None
    embedding = shared[0].name
    inner = "language_model." if embedding.startswith("language_model.model.") else ""
    return Tie(embedding, f"{inner}{_HEADS.get(base.model_type or '', 'lm_head')}.weight")


def heads_of(one: Ingredient, tie: Tie | None) -> dict[str, str]:
    """What the adapter calls the output embedding that the base does not store."""
    if tie is None:
        return {}
    return {
        path: tie.head
        for path in (*one.matching.brought, *one.matching.homes)
        if one.matching.module(path) is None and (f"{path}.weight" == tie.head or path.rpartition(".")[2] in VOCABULARY)
    }


def share(draft: Draft, tie: Tie, adapters: Iterable[Ingredient]) -> None:
    """An adapter that was trained with both sides as one changes both."""
    for one in adapters:
        if one.config.truthy("ensure_weight_tying"):
            _share_changes(draft, tie, one)
            _share_list(draft.replaced, tie, one.number)
        _share_list(draft.rows, tie, one.number)
    own = draft.tensors[tie.embedding][1].shape
    for origin in draft.replaced.get(tie.embedding, []):  # a vocabulary of another size is one of both sides
        if origin.spec.shape != own and tie.head not in draft.replaced:
            draft.replaced[tie.head] = [origin]


def is_kept(draft: Draft, tie: Tie) -> bool:
    """Whether the two sides are still one matrix."""
    return all(
        held.get(tie.embedding, []) == held.get(tie.head, []) for held in (draft.changes, draft.replaced, draft.rows)
    )


def _share_changes(draft: Draft, tie: Tie, one: Ingredient) -> None:
    mine = {
        side: [change for change in draft.changes.get(side, []) if change.adapter == one.number]
        for side in (tie.embedding, tie.head)
    }
    first, second = mine[tie.embedding], mine[tie.head]
    if first and second:
        pairs = [
            (one.factors["down"].spec, other.factors["up"].spec) for one, other in zip(first, second, strict=False)
        ]
        draft.transposes += [(one.number, *pair) for pair in pairs]
    kept = first or second
    for side in (tie.embedding, tie.head):
        others = [change for change in draft.changes.get(side, []) if change.adapter != one.number]
        if others or kept:
            draft.changes[side] = [*others, *kept]


def _share_list(held: dict[str, list[_Held]], tie: Tie, number: int) -> None:
    """What the embedding got from the adapter its other side gets as well, unless that has its own."""
    mine = [each for each in held.get(tie.embedding, []) if each.adapter == number]
    if mine and not any(each.adapter == number for each in held.get(tie.head, [])):
        held.setdefault(tie.head, []).extend(mine)
