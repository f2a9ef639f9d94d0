"""Since when ``rank_pattern`` and ``alpha_pattern`` mean what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from registry.domain.finding import Finding
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import warning

#: Fields of LoraConfig that no PEFT before 0.14 wrote; every file has all fields of the version that wrote it.
_SINCE_0_14 = ("exclude_modules", "lora_bias", "eva_config")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


def patterns_changed_meaning(
    config: AdapterConfig, ranks: Mapping[str, object], alphas: Mapping[str, object]
) -> Iterable[Finding]:
    """Up to PEFT 0.13 one key served both look-ups, so an alpha under another key than the rank was not used
    (huggingface/peft#2194)."""
    if ranks and alphas and not _is_recent(config):
        yield warning(
            "patterns-version-dependent",
            "rank_pattern and alpha_pattern are both used, and PEFT before 0.14 used one key for both: if an older one "
            "trained this, its scalings may have been others than those PEFT computes today",
            where="alpha_pattern",
            fix="use the same keys in both, or fold the scaling into lora_B",
        )


def _is_recent(config: AdapterConfig) -> bool:
    version = _VERSION.match(config.peft_version or "")
    if version is None:
        return any(field in config.raw for field in _SINCE_0_14)
    return (int(version[1]), int(version[2])) >= (0, 14)
