"""Methods that learn what is put before the input: one tensor, without prefix, and no targets in the model.

PROMPT_TUNING, P_TUNING, MULTITASK_PROMPT_TUNING and CPT have (tokens, dimension); PREFIX_TUNING and CARTRIDGE hold keys
and values of all layers, (tokens, layers·2·dimension).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.anatomy import PatternMatcher, Reading
from registry.variants.extras import read_extras
from registry.variants.findings import error
from registry.variants.lora_checks import zero_size
from registry.variants.tensor_names import Place

_OWN = re.compile("prompt_embeddings|prefix_task_(?:cols|rows)")


def read_prompt(config: AdapterConfig, tensors: Sequence[TensorSpec], _patterns: PatternMatcher) -> Reading:
    own = {spec.name for spec in tensors if _OWN.fullmatch(spec.name)}
    # The heads of a prompt-tuned classifier stand below base_model., since nothing wraps the model.
    left = [Place(spec, *_split(spec.name)) for spec in tensors if spec.name not in own]
    extras = read_extras(config, left, "prompt_")
    missing = () if "prompt_embeddings" in own else (
        error(
            "no-targets",
            f"the config says {config.peft_type} and the file has no prompt_embeddings: it would do nothing",
            fix="check that training saved the adapter, and that this is its file",
        ),
    )  # fmt: skip
    return Reading(
        variant=config.peft_type.lower(),
        targets=(),
        extra_modules=extras.modules,
        findings=(*zero_size(tensors), *missing, *extras.findings),
    )


def _split(name: str) -> tuple[str, str]:
    path, _, tail = name.removeprefix("base_model.").rpartition(".")
    return path, tail
