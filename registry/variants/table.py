"""The methods whose tensors are understood, by peft_type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants import (
    adalora,
    attachments,
    low_rank,
    lycoris,
    projections,
    rotations,
    sparse,
    spectra,
    vectors,
)
from registry.variants.anatomy import Anatomy, PatternMatcher, Reading
from registry.variants.findings import error
from registry.variants.lora import read_lora
from registry.variants.prompts import read_prompt
from registry.variants.unknown import read_unknown

#: The types of PEFT 0.21.2 (``peft/utils/peft_types.py``), and BONE, which is MISS before 0.16 and still on the Hub.
# fmt: off
PEFT_TYPES = frozenset({
    "ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "BONE", "C3A", "CARTRIDGE", "CPT", "DEFT", "DELORA",
    "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA",
    "MISS", "MULTITASK_PROMPT_TUNING", "OFT", "OSF", "PEANUT", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "PSOFT",
    "PVERA", "P_TUNING", "RANDLORA", "ROAD", "SHADOW", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS",
    "UNILORA", "VBLORA", "VERA", "WAVEFT", "XLORA",
})
# fmt: on
TASK_TYPES = frozenset({"CAUSAL_LM", "FEATURE_EXTRACTION", "QUESTION_ANS", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS"})

ANATOMIES: Mapping[str, Anatomy] = MappingProxyType(
    {
        "ADALORA": adalora.READ_ADALORA,
        "ADAMSS": low_rank.READ_ADAMSS,
        "ADAPTION_PROMPT": attachments.READ_ADAPTION_PROMPT,
        "BEFT": vectors.READ_BEFT,
        "BOFT": rotations.READ_BOFT,
        "BONE": low_rank.READ_BONE,
        "C3A": spectra.READ_C3A,
        "CARTRIDGE": read_prompt,
        "CPT": read_prompt,
        "DEFT": low_rank.READ_DEFT,
        "DELORA": low_rank.READ_DELORA,
        "FOURIERFT": spectra.READ_FOURIERFT,
        "FROD": projections.READ_FROD,
        "GLORA": low_rank.READ_GLORA,
        "GRALORA": low_rank.READ_GRALORA,
        "HIRA": low_rank.READ_HIRA,
        "HRA": rotations.READ_HRA,
        "IA3": vectors.READ_IA3,
        "LILY": low_rank.READ_LILY,
        "LN_TUNING": vectors.READ_LN_TUNING,
        "LOHA": lycoris.READ_LOHA,
        "LOKR": lycoris.READ_LOKR,
        "LORA": read_lora,
        "MISS": low_rank.READ_MISS,
        "MULTITASK_PROMPT_TUNING": read_prompt,
        "OFT": rotations.read_oft,
        "OSF": low_rank.READ_OSF,
        "PEANUT": low_rank.READ_PEANUT,
        "POLY": low_rank.READ_POLY,
        "PREFIX_TUNING": read_prompt,
        "PROMPT_TUNING": read_prompt,
        "PSOFT": rotations.READ_PSOFT,
        "PVERA": projections.READ_PVERA,
        "P_TUNING": read_prompt,
        "RANDLORA": projections.READ_RANDLORA,
        "ROAD": rotations.READ_ROAD,
        "SHADOW": attachments.READ_SHADOW,
        "SHIRA": sparse.READ_SHIRA,
        "SUPERTUNING": sparse.READ_SUPERTUNING,
        "TINYLORA": projections.READ_TINYLORA,
        "TRAINABLE_TOKENS": vectors.READ_TRAINABLE_TOKENS,
        "UNILORA": projections.READ_UNILORA,
        "VBLORA": projections.READ_VBLORA,
        "VERA": projections.READ_VERA,
        "WAVEFT": spectra.READ_WAVEFT,
        "XLORA": attachments.READ_XLORA,
    }
)


def read_anatomy(config: AdapterConfig, tensors: Sequence[TensorSpec], patterns: PatternMatcher) -> Reading:
    """Read the adapter by its method's anatomy, or name what can be named without one."""
    method = config.peft_type.upper()
    reading = ANATOMIES.get(method, read_unknown)(config, tensors, patterns)
    refused = tuple(_refused(config, method)) if method in ANATOMIES else ()
    return replace(reading, findings=(*refused, *reading.findings)) if refused else reading


def _refused(config: AdapterConfig, method: str) -> Iterator[Finding]:
    """What PEFT refuses of any method's config: it knows both fields by their exact words."""
    task = config.raw.get("task_type")
    for field, written, expected, is_right in (
        ("peft_type", config.peft_type, f"{method} in capitals", config.peft_type == method),
        (
            "task_type",
            task,
            f"null or one of {', '.join(sorted(TASK_TYPES))}",
            isinstance(task, str) and task in TASK_TYPES,
        ),
    ):
        if isinstance(written, str) and not is_right:
            yield error(
                "config-refused",
                f"{field} is {written!r:.40}; expected {expected}, so PEFT cannot load the adapter",
                where=field,
                fix=f"correct {field} in adapter_config.json",
            )
