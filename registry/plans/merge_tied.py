"""Input and output embedding that are one matrix: whether they still are after the merge.

Two sides share a matrix in the base. Where an adapter changes one side only, or both differently, the output needs two
matrices, and its config has to say so; PEFT 0.21 merges the change of one side into both. Where both sides change alike
(``ensure_weight_tying``, single tokens) they stay one, changed once. That an adapter has both sides its file says: PEFT 0.18
does nothing about the flag, and later ones nothing about embeddings of other names than ``embed_tokens``.

Encoder and decoder of T5 and BART have one embedding besides, and each a module of its own for it: LoRA of ``shared`` is LoRA of
none of them, and with two matrices transformers finds neither of theirs. T5 also scales its output by whether they are tied; one
whose config says that nothing is scaled can have an output of its own, as T5 1.1 and Flan-T5 do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from registry.checks.heads import VOCABULARY
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merging import Change, Origin, SameNumbers, TokenRows

_BERT, _ROBERTA = "cls.predictions.decoder", "lm_head.decoder"
#: What the output embedding is called on disk; ``lm_head`` elsewhere, in classes that generate.
_HEADS = {
    "albert": "predictions.decoder",
    **dict.fromkeys(("bert", "big_bird", "deberta", "deberta-v2", "ernie", "layoutlm", "roc_bert", "roformer"), _BERT),
    "biogpt": "output_projection",
    **dict.fromkeys(("camembert", "data2vec-text", "esm", "longformer", "mpnet", "roberta", "xlm-roberta"), _ROBERTA),
    **dict.fromkeys(("roberta-prelayernorm", "xlm-roberta-xl", "xmod"), _ROBERTA),
    **dict.fromkeys(("convbert", "electra"), "generator_lm_head"),
    "distilbert": "vocab_projector",
    **dict.fromkeys(("flaubert", "xlm"), "pred_layer.proj"),
    "git": "output",
    **dict.fromkeys(("gpt_neox", "gpt_neox_japanese"), "embed_out"),
    **dict.fromkeys(("modernbert", "modernbert-decoder"), "decoder"),
    **dict.fromkeys(("moonshine", "whisper"), "proj_out"),
    "rwkv": "head",
    "trocr": "output_projection",
    "xlnet": "lm_loss",
}
_GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "DoubleHeadsModel", "MTModel")
#: Ends of the classes that have one.
_HEADED = (*_GENERATORS, "ForMaskedLM", "ForPreTraining")

#: Classes that scale what goes into the output if the config says that it is tied; transformers 5 keeps what it said.
_SCALED_IF_TIED = frozenset({"longt5", "pop2piano", "t5", "umt5"})
_SCALED = "scale_decoder_outputs"

_Held = TypeVar("_Held", Origin, TokenRows)


@dataclass(frozen=True, slots=True)
class Tie:
    """The stored names of the two sides: ``head`` is not stored as long as they are one. ``is_known`` says whether it is sure what
    they are called."""

    embedding: str
    head: str
    is_known: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether encoder and decoder have it in common as well."""
        return self.embedding.endswith("shared.weight")

    @property
    def biases(self) -> tuple[str, str]:
        """BERT's bias of the output has two names of which one is stored, as long as the weights are tied."""
        module = self.head.removesuffix(".weight")
        return f"{module.rpartition('.')[0]}.bias", f"{module}.bias"


def tie_of(base: BaseModelSpec, draft: Draft) -> Tie | None:
    """None where the base has two matrices, or none for the output."""
    if not base.is_tied or not any(name.endswith(_HEADED) for name in base.architectures):
        return None
    found = [
        spec
        for module in base.modules
        if module.kind is ModuleKind.EMBEDDING and module.path.rpartition(".")[2] in VOCABULARY
        for spec in (draft.stored(module),)
        if spec is not None
    ]
    found = [spec for spec in found if spec.shape[0] == base.vocabulary] or found  # PaliGemma's config counts fewer
    if not found:  # CTRL's w, XLNet's word_embedding
        every = [spec for _, spec in draft.tensors.values()]
        found = [spec for spec in every if len(spec.shape) == 2 and spec.shape[0] == base.vocabulary]
        found = [spec for spec in found if "embed" in spec.name] or found
    shared = [spec for spec in found if spec.name.endswith("shared.weight")] or found
    if not shared:
        return None
    embedding = shared[0].name
    parts = embedding.split(".")
    inner = ".".join([*parts[:-3], ""]) if parts[-3:] == ["model", "embed_tokens", "weight"] else ""
    head = inner + _HEADS.get(base.model_type or "", "lm_head")
    above = head.rpartition(".")[0]
    is_known = len(shared) == 1 and (
        any(name.startswith(f"{above}.") for name in draft.tensors)
        if above and not inner
        else base.model_type in _HEADS or any(name.endswith(_GENERATORS) for name in base.architectures)
    )
    return Tie(embedding, f"{head}.weight", is_known)


def heads_of(one: Ingredient, tie: Tie | None) -> dict[str, str]:
    """What the adapter calls the output embedding that the base does not store."""
    if tie is None:
        return {}
    return {
        path: tie.head
        for path in (*one.matching.brought, *one.matching.homes, *(whole.module for whole in one.matching.whole))
        if one.matching.module(path) is None and (f"{path}.weight" == tie.head or path.rpartition(".")[2] in VOCABULARY)
    }


def share(draft: Draft, tie: Tie, adapters: Iterable[Ingredient]) -> None:
    """An adapter that was trained with both sides as one changes both."""
    for one in adapters:
        if one.config.truthy("ensure_weight_tying") and one.manifest.peft_type == "LORA":
            _share_changes(draft, tie, one)
        _share_list(draft.rows, tie, one.number)
    own = draft.tensors[tie.embedding][1].shape
    for origin in draft.replaced.get(tie.embedding, []):  # a vocabulary of another size is one of both sides
        if origin.spec.shape != own and tie.head not in draft.replaced:
            draft.replaced[tie.head] = [origin]
    for origin in draft.replaced.get(tie.head, []):
        if origin.spec.shape != own and tie.embedding not in draft.replaced:
            draft.replaced[tie.embedding] = [origin]


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
    if not (first and second):
        return
    pairs = [(one.factors["down"].spec, other.factors["up"].spec) for one, other in zip(first, second, strict=False)]
    draft.transposes += [(one.number, *pair) for pair in pairs]
    for side in (tie.embedding, tie.head):
        others = [change for change in draft.changes[side] if change.adapter != one.number]
        draft.changes[side] = [*others, *first]


def refuse_entangled(draft: Draft, tie: Tie | None, base: BaseModelSpec) -> None:
    """Changes of embeddings that cannot be taken apart, or that nobody knows the sides of."""
    untied = tie is not None and not is_kept(draft, tie)
    names = [f"{module.path}.weight" for module in base.modules if module.path.rpartition(".")[2] == "shared"]
    touched = {*draft.changes, *draft.rows}
    is_scaled = False
    saved = [each.spec.name for name in names for each in draft.replaced.get(name, [])]
    if touched.intersection(names) or any(name.endswith("shared.weight") for name in saved):
        shared = next(iter(touched.intersection(names)), names[0])
    elif untied and tie is not None and tie.is_shared:
        if _may_have_own_head(draft, tie, base):
            return
        shared, is_scaled = tie.embedding, _is_head_alone(draft, tie) and base.model_type in _SCALED_IF_TIED
    elif untied and tie is not None and not tie.is_known:
        draft.refuse(
            "tied-head-unknown",
            f"an adapter changes one side of the tied {tie.embedding}, and how {base.architectures[0]} calls the other is "
            "not known",
            where="config.json",
            fix="serve it unmerged with PEFT, or train with ensure_weight_tying",
        )
        return
    else:
        return
    draft.refuse(
        "tied-encoder-decoder",
        f"encoder, decoder and output have {shared} in common, and an adapter changes it for some of them"
        + (f"; a {base.model_type} with an output of its own would not scale it any more" if is_scaled else ""),
        where=shared,
        fix="serve it unmerged with PEFT, or train without the embedding",
    )


def _may_have_own_head(draft: Draft, tie: Tie, base: BaseModelSpec) -> bool:
    """Encoder and decoder go on with the embedding as it is."""
    is_unscaled = base.model_type in _SCALED_IF_TIED and draft.base.config.get(_SCALED) is False
    return is_unscaled and _is_head_alone(draft, tie)


def _is_head_alone(draft: Draft, tie: Tie) -> bool:
    return not any(each.get(tie.embedding) for each in (draft.changes, draft.replaced, draft.rows))


def unite_saved(draft: Draft, tie: Tie, same: Callable[[Origin, Origin], bool]) -> None:
    """What replaces both sides by the same numbers leaves them one."""
    for at, saved in enumerate(draft.replaced.get(tie.head, [])):
        for own in draft.replaced.get(tie.embedding, []):
            if (own.adapter, own.spec.shape) == (saved.adapter, saved.spec.shape) and same(own, saved):
                draft.replaced[tie.head][at] = own


def unite_changes(draft: Draft, tie: Tie, adapters: Sequence[Ingredient], same: SameNumbers) -> None:
    """What changes both sides by the same factors, turned round, leaves them one, also where nothing says that they were trained as
    one: PEFT warns of ``ensure_weight_tying`` for sides that are not called ``embed_tokens`` and ``lm_head``."""

    def is_turned(one: Change, other: Change) -> bool:
        def factor(change: Change, role: str) -> Origin:
            return Origin(adapters[change.adapter].weights, change.factors[role].spec, change.adapter)

        if (one.adapter, one.formula, one.numbers) != (other.adapter, "lora", other.numbers):
            return False
        roles = (("down", "up"), ("up", "down"))
        return all(same(factor(one, mine), factor(other, theirs), transposed=True) for mine, theirs in roles)

    for at, change in enumerate(draft.changes.get(tie.head, [])):
        for own in draft.changes.get(tie.embedding, []):
            if own.transposed is not change.transposed and is_turned(own, change):
                draft.changes[tie.head][at] = own


def unite_rows(draft: Draft, tie: Tie, adapters: Sequence[Ingredient], same: Callable[[Origin, Origin], bool]) -> None:
    """Rows that an adapter has for both sides, of the same tokens and with the same numbers, are one: TRAINABLE_TOKENS writes them
    twice where the two sides are tied."""

    def origin(rows: TokenRows) -> Origin:
        return Origin(adapters[rows.adapter].weights, rows.spec, rows.adapter)

    for at, rows in enumerate(draft.rows.get(tie.head, [])):
        for own in draft.rows.get(tie.embedding, []):
            if (own.adapter, own.indices) == (rows.adapter, rows.indices) and same(origin(own), origin(rows)):
                draft.rows[tie.head][at] = own


def _share_list(held: dict[str, list[_Held]], tie: Tie, number: int) -> None:
    """What the embedding got from the adapter its other side gets as well, unless that has its own."""
    mine = [each for each in held.get(tie.embedding, []) if each.adapter == number]
    if mine and not any(each.adapter == number for each in held.get(tie.head, [])):
        held.setdefault(tie.head, []).extend(mine)
