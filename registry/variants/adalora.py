"""ADALORA: ΔW = α·B·diag(E)·A, pruned to another rank in each module. https://arxiv.org/abs/2303.10512

PEFT divides by ``ranknum``, which it does not save, and keeps α itself as the layer's scaling. ``rank_pattern`` holds
no ranks here but masks: which of ``init_r`` singular values survived.
"""

from __future__ import annotations

from registry.formats.adapter_config import AdapterConfig
from registry.variants.modules import Method, size_of


def _scaling(_config: AdapterConfig, rank: int | None, alpha: float | None) -> float | None:
    if alpha is None or alpha > 0:
        return alpha
    return None if rank is None else float(rank)


def _is_pruned_away(config: AdapterConfig, path: str) -> bool:
    masks = config.raw.get("rank_pattern")
    mask = masks.get(f"{path}.lora_E") if isinstance(masks, dict) else None
    return isinstance(mask, list) and not any(mask)


READ_ADALORA = Method(
    variant="adalora",
    mark="lora_",
    tails="lora_[ABE]",
    together=(frozenset({"lora_A", "lora_B", "lora_E"}),),
    rank=size_of("lora_A", 0),
    alpha=("lora_alpha", 8),
    scaling=_scaling,
    silent=("lora_E",),
    may_be_empty=_is_pruned_away,
)
