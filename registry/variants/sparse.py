"""Methods that change single entries of the weights: SHIRA and SUPERTUNING.

SHIRA's ``r`` only says how many, r·(in + out); no tensor shows it, and PEFT's layer keeps the config's. SUPERTUNING may
have a plain LoRA beside it ("Supra").
"""

from __future__ import annotations

from registry.formats.adapter_config import AdapterConfig
from registry.variants.modules import Method, size_of


def _one(_config: AdapterConfig, _rank: int | None, _alpha: float | None) -> float | None:
    return 1.0


READ_SHIRA = Method(
    variant="shira",
    mark="shira_",
    tails="shira_(?:weight|indices)",
    together=(frozenset({"shira_weight", "shira_indices"}),),
    config_rank=32,
    rank_from_config=True,
    scaling=_one,
    silent=("shira_weight",),
)

READ_SUPERTUNING = Method(
    variant="supertuning",
    mark="supertuning_",
    tails=r"supertuning_(?:values|indices)|supertuning_lora_[AB]\.weight",
    together=(frozenset({"supertuning_lora_A.weight", "supertuning_lora_B.weight"}),),
    rank=size_of("supertuning_lora_A.weight", 0),
    silent=("supertuning_values",),
)
