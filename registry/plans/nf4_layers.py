"""Which weights of a plain checkpoint QLoRA rounds to NF4: those that transformers 4 makes bitsandbytes' Linear4bit.

Every ``nn.Linear`` but the output: the matrices of two dimensions that are no embeddings, no head, no router of a
class of its own, and not what the model type keeps in float32. Experts that are stored one by one are linear layers
there (transformers 5 fuses them on loading and leaves them as they are); fused ones are none. Conv1D is turned round
before it is packed, so that its blocks lie across the rows: those models are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from registry.domain.base_model import BaseModelSpec, ModuleKind, ModuleSpec
from registry.domain.checkpoint import Checkpoint
from registry.formats.model_config import ModelConfig
from registry.formats.packing import modules_left_out

_ROUNDED = frozenset({"F32", "F16", "BF16"})
#: What outputs are called, outside all layers.
_OUTPUTS = frozenset({
    "classifier", "decoder", "embed_out", "generator_lm_head", "head", "lm_head", "lm_heads", "logits_proj", "out_proj",
    "output_projection", "pred_layer", "proj_out", "qa_outputs", "score", "seq_relationship", "vocab_projector",
})  # fmt: skip
#: Without a bias, what is called so is looked up, not multiplied.
_LOOKED_UP = re.compile(r"embed|codebook|position|(?:^|_)pos_emb")
#: ``_keep_in_fp32_modules`` of transformers' classes: by model type, and of sparse attention wherever it is.
_KEPT = {
    **dict.fromkeys(("mt5", "pop2piano", "t5", "udop", "umt5"), "wo"),
    **dict.fromkeys(("blip-2", "blip_2"), "qformer"),
}
_KEPT_ANYWHERE = ".indexer.weights_proj"


def rounded_weights(base: Checkpoint, spec: BaseModelSpec) -> frozenset[str]:
    """Their names."""
    config = ModelConfig(base.config)
    stored = {each.name: each for _, each in base}
    left_out = modules_left_out(config)
    kept = _KEPT.get(spec.model_type or "")
    fused = {module.path.rpartition(".")[0] for module in spec.modules if module.kind is ModuleKind.EXPERTS}
    return frozenset(
        name
        for module in spec.modules
        for name in (f"{module.path}.weight",)
        if name in stored
        and stored[name].dtype in _ROUNDED
        and _is_linear(module)
        and not _is_output(module, spec.vocabulary)
        and not _is_router(module, stored.keys(), fused)
        and not (module.path.endswith("out_proj") and f"{_above(module.path)}.in_proj_weight" in stored)
        and kept not in module.path.split(".")
        and not module.path.endswith(_KEPT_ANYWHERE)
        and not any(_is_named(module.path, one) for one in left_out)
    )


def _is_linear(module: ModuleSpec) -> bool:
    if module.shape is None or len(module.shape) != 2 or module.kind not in (ModuleKind.LINEAR, ModuleKind.EMBEDDING):
        return False
    looked_up = module.kind is ModuleKind.EMBEDDING or _LOOKED_UP.search(_name(module.path)) is not None
    return module.has_bias or not looked_up


def _is_output(module: ModuleSpec, vocabulary: int | None) -> bool:
    if any(part.isdecimal() for part in module.path.split(".")[:-1]):
        return False
    return _name(module.path) in _OUTPUTS or (module.shape is not None and module.shape[0] == vocabulary)


def _is_router(module: ModuleSpec, names: Collection[str], fused: set[str]) -> bool:
    """One that corrects its scores, or stands beside experts in one tensor."""
    if _name(module.path) not in ("gate", "router"):
        return False
    above = _above(module.path)
    return f"{module.path}.e_score_correction_bias" in names or not fused.isdisjoint({above, f"{above}.experts"})


def _is_named(path: str, one: str) -> bool:
    """As a beginning, an end or a part of the path: transformers 4 and 5 look differently. Never as a pattern."""
    return path.endswith(one) or f".{one}." in f".{path}."


def _name(path: str) -> str:
    """The last part that is no number."""
    return next((part for part in reversed(path.split(".")) if not part.isdecimal()), "")


def _above(path: str) -> str:
    return path.rpartition(".")[0]
