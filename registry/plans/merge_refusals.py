"""What is never merged, whatever the tensors say; each with the reason and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.checks.merging import unmergeable
from registry.domain.base_model import BaseModelSpec
from registry.plans.merge_draft import Draft, Ingredient
from registry.variants.settings import layer_spans

if TYPE_CHECKING:
    from registry.plans.merge_plan import MergeOptions

#: Methods of which a merger exists.
MERGEABLE = frozenset({"LORA"})


def refuse_unmergeable(
    draft: Draft, base: BaseModelSpec, adapters: Sequence[Ingredient], options: MergeOptions
) -> None:
    if base.is_quantized:
        draft.refuse(
            "quantized-base",
            "the base is quantised (quantization_config): a change would be rounded away to its few levels",
            where="config.json",
            fix="merge into the base before it was quantised",
        )
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


def refuse_weight(draft: Draft, one: Ingredient) -> None:
    if one.weight != 1 and one.manifest.variant == "dora":
        draft.refuse(
            "weight-on-dora",
            f"{one.name}: DoRA is no delta that a share of {one.weight:g} could be taken of",
            where="use_dora",
            fix="merge it with weight 1",
        )
