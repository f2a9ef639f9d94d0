"""What is never merged, whatever the tensors say; each with the reason and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.checks.merging import unmergeable
from registry.domain.base_model import BaseModelSpec, ModuleKind
from registry.formats.model_config import ModelConfig
from registry.formats.nf4 import MARK
from registry.formats.packing import NF4, packing_of
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merge_methods import PLANNERS
from registry.plans.merging import Change
from registry.variants.settings import layer_spans

if TYPE_CHECKING:
    from registry.plans.merge_plan import MergeOptions

#: Findings of the rules that say a part of the adapter is missing; a merge makes errors of them.
PARTIAL = frozenset({"kind-without-tensors", "layer-without-tensors", "orphan-factor"})
#: Methods of which a merger exists.
MERGEABLE = frozenset({"LORA", *PLANNERS})
#: Variants that are no delta: what they are called, and the field that says so.
_NO_DELTA = {
    "boft": ("BOFT", "peft_type"),
    "dora": ("DoRA", "use_dora"),
    "hra": ("HRA", "peft_type"),
    "ia3": ("IA3", "peft_type"),
    "oft": ("OFT", "peft_type"),
}
#: Formulas whose results add up, so that several may act on one weight.
ADDITIVE = frozenset({"adalora", "bias", "loha", "loha_kernel", "lokr", "lokr_sequence", "lora", "miss"})


def refuse_unmergeable(
    draft: Draft, base: BaseModelSpec, adapters: Sequence[Ingredient], options: MergeOptions
) -> None:
    refuse_packing(draft, base, options)
    for one in adapters:
        manifest = one.manifest
        why = unmergeable(manifest)
        if why is not None:
            draft.refuse(
                "not-mergeable",
                f"{one.name}: {manifest.peft_type} ({manifest.variant}) cannot be merged: {why}",
                where="adapter_config.json",
                fix="serve it with PEFT, or with an engine that knows the method",
            )
        elif manifest.peft_type not in MERGEABLE:
            draft.refuse(
                "not-mergeable",
                f"{one.name}: there is no merger for {manifest.peft_type} in this version",
                where="adapter_config.json",
                fix="merge it with PEFT's merge_and_unload, or convert it to LoRA",
            )
        elif manifest.variant == "kasa":
            draft.refuse(
                "base-changed-by-initialization",
                f"{one.name}: KaSA takes the smallest singular components out of every weight of the base, which the base as "
                "published still has",
                where="kasa_config",
                fix="merge it with PEFT, which computes them again",
            )
        elif manifest.base_change is not None and not options.base_is_residual:
            draft.refuse(
                "base-changed-by-initialization",
                f"{one.name}: training started from {manifest.base_change}, which takes something out of the base, so that its "
                "factors are no delta to the base as published",
                where="init_lora_weights",
                fix="save it with path_initial_model_for_weight_conversion (PEFT), or give the residual base and say so: "
                "--base-is-residual",
            )
        if layer_spans(one.config):
            draft.refuse(
                "layers-replicated",
                f"{one.name}: layer_replication makes several layers of one weight, which a merge would change for all of them",
                where="layer_replication",
                fix="serve it unmerged with PEFT",
            )
        refuse_weight(draft, one)


def refuse_packing(draft: Draft, base: BaseModelSpec, options: MergeOptions) -> None:
    packing = packing_of(ModelConfig(draft.base.config)) or NF4
    through_nf4 = options.base_view == "nf4"
    if through_nf4 and any(module.kind is ModuleKind.CONV1D for module in base.modules):
        draft.refuse(
            "nf4-conv1d",
            f"bitsandbytes turns the Conv1D layers of {base.model_type} round before it packs them, so that its blocks lie across "
            "the rows that are stored: they cannot be seen as QLoRA saw them",
            where="model_type",
            fix="merge into the base before it was quantised, without --base-view",
        )
    is_nf4 = any(name.endswith(MARK) for name in draft.tensors)
    if not (base.is_quantized or is_nf4):
        return
    if through_nf4:
        draft.refuse(
            "quantized-base",
            f"the base is packed ({packing}), and --base-view nf4 can only unpack bitsandbytes' NF4",
            where="config.json",
            fix="merge into the base before it was quantised",
        )
    else:
        draft.refuse(
            "quantized-base",
            f"the base is quantised ({packing}): a change would be rounded away to its few levels",
            where="config.json",
            fix="merge into the base before it was quantised"
            + ("; or into the numbers that its codes stand for: --base-view nf4" if is_nf4 else ""),
        )


def refuse_weight(draft: Draft, one: Ingredient) -> None:
    if one.weight not in (0, 1) and one.manifest.variant in _NO_DELTA:
        name, field = _NO_DELTA[one.manifest.variant]
        draft.refuse(
            f"weight-on-{one.manifest.variant}",
            f"{one.name}: {name} is no delta that a share of {one.weight:g} could be taken of",
            where=field,
            fix="merge it with weight 1",
        )


def refuse_stacked(draft: Draft, adapters: Sequence[Ingredient]) -> None:
    """Changes of one tensor that do not add up, since one of them is about the base as it was or takes the base's place."""
    for name, changes in draft.changes.items():
        _refuse_beside(draft, adapters, name, changes)
        _refuse_replaced(draft, adapters, name, {change.adapter for change in changes})
    for name, rows in draft.rows.items():
        indices = [index for each in rows for index in each.indices]
        if len(set(indices)) < len(indices):
            draft.refuse(
                "stacked",
                f"two adapters replace the same rows of {name}",
                where=name,
                fix="merge only one of them",
            )


def _refuse_beside(draft: Draft, adapters: Sequence[Ingredient], name: str, changes: Sequence[Change]) -> None:
    whole = [change for change in changes if change.formula not in ADDITIVE]
    beside = [
        other
        for change in whole
        for other in changes
        if other is not change and other.start < change.stop and change.start < other.stop
    ]
    if beside:
        draft.refuse(
            "stacked",
            f"{adapters[whole[0].adapter].name} ({whole[0].formula}) and {adapters[beside[0].adapter].name} both change "
            f"{name}, and what the first does is about the base as it was",
            where=name,
            fix="merge only one of them",
        )


def _refuse_replaced(draft: Draft, adapters: Sequence[Ingredient], name: str, changing: set[int]) -> None:
    """``changing`` are the numbers of the adapters that change the tensor."""
    whole = [origin.adapter for origin in draft.replaced.get(name, [])]
    of_rows = [each.adapter for each in draft.rows.get(name, [])]
    others = [number for number in (*whole, *of_rows) if {number} != changing]
    if others:
        first = adapters[others[0] or 0].name
        second = adapters[min(changing - {others[0]})].name
        draft.refuse(
            "stacked",
            f"{first} replaces {name}, in part or whole, and {second} changes it",
            where=name,
            fix="merge only one of them",
        )
    elif of_rows:
        draft.refuse(
            "stacked",
            f"{adapters[of_rows[0]].name} changes {name}, and replaces rows of it for single tokens as well (with tied "
            "embeddings those of one side are the other's), and both on one matrix are not merged here",
            where=name,
            fix="serve it unmerged with PEFT, or train only one of the two: the layer, or single tokens",
        )
