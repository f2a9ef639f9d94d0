"""Fused experts: one pair of factors for all of them, whose layout the file does not always say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from registry.checks.matching import match
from registry.checks.misfit import warning
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import ModuleKind
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import some

_ID = "experts-layout-ambiguous"
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
#: The marker of newer Unsloth (unslothai/unsloth-zoo#1232), wherever it stands.
_MARKER = "lora_B_layout"
_PACKING_FIX = (
    "train or convert it with an Unsloth that writes lora_B_layout, or compare its answers with the trainer's"
)
_SQUARE_FIX = "say which PEFT saved it: peft_version in adapter_config.json"


def _packing(subject: Subject) -> Iterator[Finding]:
    """PEFT packs the columns of B with the expert fastest, (out, r, E); Unsloth before unsloth-zoo#1269 slowest, (out, E, r).
    Both have one shape, so that only who trained it tells."""
    manifest = subject.manifest
    if not packed_by_unsloth(manifest, subject.config):
        return
    asked = subject.config.raw.get("target_parameters")
    names = {str(name).rpartition(".")[2] for name in (asked if isinstance(asked, list) else ())}
    packed = [target.path for target in manifest.targets if target.name in names and (target.rank or 0) > 1]
    if packed:
        yield warning(
            _ID,
            f"Unsloth trained {some(packed)}, and its older versions packed lora_B of fused experts the other way round "
            "than PEFT; nothing in the file says which",
            where="target_parameters",
            target=packed[0],
            fix=_PACKING_FIX,
        )


def _orientation(subject: Subject) -> Iterator[Finding]:
    """PEFT before 0.20 took a 3-D parameter (E, out, in) for (E, in, out), and a square one does not show it."""
    matching = match(subject)
    if matching is None or _VERSION.match(subject.config.peft_version or ""):
        return  # the version is known, and either side of 0.20 has one meaning
    square = [
        path
        for path in matching.layers
        for module in [matching.module(path)]
        if module is not None
        and module.kind is ModuleKind.EXPERTS
        and module.shape is not None
        and module.shape[1] == module.shape[2]
    ]
    if square:
        yield warning(
            _ID,
            f"the experts of {some(square)} are square, and PEFT before 0.20 took their rows for columns; which version "
            "saved this the file does not say",
            where="peft_version",
            target=square[0],
            fix=_SQUARE_FIX,
        )


def _layouts(subject: Subject) -> Iterator[Finding]:
    yield from _packing(subject)
    yield from _orientation(subject)


def packed_by_unsloth(manifest: Manifest, config: AdapterConfig) -> bool:
    """Whether Unsloth trained it, and the file does not say which packing that Unsloth had."""
    tools = manifest.training.get("tools")
    return _MARKER not in config.raw and (
        (manifest.base_model.raw or "").lower().startswith("unsloth/")
        or (isinstance(tools, list | tuple) and "unsloth" in tools)
    )


EXPERTS_LAYOUT = Rule(
    _ID,
    Severity.WARNING,
    "Two trainers pack the factors of fused experts in two ways of one shape; the wrong one gives every expert a mixture of "
    "the others' changes.",
    "Find out who trained it, and with which version.",
    _layouts,
)
