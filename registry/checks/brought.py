"""Modules that the adapter has and the base lacks, and that are right all the same: heads of the class that was trained.

PEFT loads what the model has. A checkpoint may lack the head of the class that is loaded; so a module outside all layers is
brought along if the config declares it (``modules_to_save``), or if that class has a module of this name. Anything else PEFT
would drop without a word. What PEFT lists as a head by itself, for every model of a task, declares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from registry.checks.places import Places, class_of, in_memory
from registry.formats.base_classes import head_names
from registry.formats.base_heads import DEFAULTS, heads_of
from registry.variants.settings import saved_modules

if TYPE_CHECKING:
    from registry.formats.adapter_config import AdapterConfig

#: What heads are called, for classes that the table does not know.
HEADS = frozenset({
    "classification_head", "classifier", "cls", "ctc_head", "discriminator_predictions", "embed_out", "fc",
    "generator_lm_head", "generator_predictions", "head", "heads", "lm_head", "lm_loss", "logits_proj",
    "multi_modal_projector", "output_projection", "pooler", "pre_classifier", "pred_layer", "predictions", "proj_out",
    "projector", "qa_outputs", "score", "scores", "seq_relationship", "sequence_summary", "summary",
    "vocab_layer_norm", "vocab_projector", "vocab_transform",
})  # fmt: skip
#: What a backbone has in some classes and lacks in others.
OPTIONAL = frozenset({"pooler"})
#: Words of a declared name that are looked at.
_DEEPEST = 16
#: Input embeddings: no checkpoint lacks its own.
_INPUTS = frozenset({"embed_in", "embed_tokens", "shared", "tok_embeddings", "word_embeddings", "wte"})


def brought_by(config: AdapterConfig, places: Places, prefix: str | None) -> Callable[[str], bool]:
    """Whether a path that has no place in the base is such a head. One that the class is known for stands at its top, or below
    another part that the base has beside its backbone."""
    task, base = config.task_type, places.base
    known = heads_of(base.model_type, task, class_of(config))
    names = HEADS | head_names(base.model_type) if known is None else known | OPTIONAL
    listed = DEFAULTS.get(task or "", frozenset())
    declared = frozenset(saved_modules(config)) - listed

    def is_astray(parts: Sequence[str]) -> bool:
        at = next((i for i, part in enumerate(parts) if part in names), 0)
        if at == 0 or not OPTIONAL.isdisjoint(parts):
            return False
        above = ".".join(parts[:at])
        return f"{above}." == places.prefix or places.find(above, prefix) is None

    def is_brought(path: str) -> bool:
        parts = path.split(".")
        if any(part.isdecimal() for part in parts) or parts[-1] in _INPUTS:
            return False
        if known is not None and is_astray(parts) and is_astray(in_memory(path, base.model_type).split(".")):
            return False
        if any(".".join(parts[start:]) in declared for start in range(max(0, len(parts) - _DEEPEST), len(parts))):
            return True
        return not names.isdisjoint(parts) or not names.isdisjoint(in_memory(path, base.model_type).split("."))

    return is_brought
