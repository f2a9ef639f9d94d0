"""From a tensor's name to the module it belongs to, and what is wrong with names that PEFT would not find.

PEFT writes ``base_model.model.`` + module path + ``.`` + tail, without the adapter's name
(``peft/tuners/tuners_utils.py``, ``_remove_adapter_name_from_state_dict_key``). Tensors that all layers share stand
directly below ``base_model.``. On load, names that fit nothing are dropped without a word and the adapter does
nothing (PEFT issues 1959 and 3009), so such names are errors here. They are read all the same: a description of what is
there helps whoever has to repair it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.variants.findings import error, some

PREFIX = "base_model.model."

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_FOREIGN = (
    (re.compile(r"\.lora_(?:down|up)\.weight$|(?:^|\.)lora_[^.]*\.alpha$|^lora_(?:unet|te\d?)_"), "kohya or diffusers"),
    (re.compile(r"\.lora_[ab]$"), "mlx-lm"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` is the module's, without the prefix but with PEFT's own ``base_layer``; empty for shared tensors."""

    spec: TensorSpec
    path: str
    tail: str


def places(
    tensors: Iterable[TensorSpec], mark: str, tails: re.Pattern[str], shared: re.Pattern[str] | None = None
) -> tuple[list[Place], list[Finding]]:
    """Split every name before the last component that starts with ``mark`` (``lora_``), or else before its last.

    ``tails`` is the grammar of the method's tails. A tail that fits once a component is left out carries the adapter's
    name (``lora_A.default.weight``). ``shared`` is the grammar of what stands directly below ``base_model.``.
    """
    found: list[Place] = []
    wrapped: list[str] = []
    prefixless: list[str] = []
    named: dict[str, str] = {}
    foreign: dict[str, list[str]] = {}
    tensors = tuple(tensors)
    names = {spec.name for spec in tensors}
    for spec in tensors:
        name = spec.name
        maker = next((maker for pattern, maker in _FOREIGN if mark == "lora_" and pattern.search(name)), None)
        if maker is not None:
            foreign.setdefault(maker, []).append(name)
            continue
        parts = name.split(".")
        if any(wrapper in parts for wrapper in _WRAPPERS):
            wrapped.append(name)
            parts = [part for part in parts if part not in _WRAPPERS]
        if parts[:2] == ["base_model", "model"]:
            parts = parts[2:]
        elif shared is not None and parts[0] == "base_model" and shared.fullmatch(".".join(parts[1:])):
            found.append(Place(spec, "", ".".join(parts[1:])))
            continue
        else:
            prefixless.append(name)
            parts = parts[1:] if parts[0] == "base_model" and len(parts) > 1 else parts
        start = max((i for i, part in enumerate(parts) if part.startswith(mark)), default=len(parts) - 1)
        tail, adapter = _without_adapter_name(parts[start:], tails)
        path, saved = _without_saved_name(parts[:start])
        if saved and f"{PREFIX}{path}.{tail}" in names:
            continue  # PEFT saves the biases of a head twice with bias="all"; this is the copy that it does not load
        if adapter or saved:
            named[name] = adapter or saved
        found.append(Place(spec, path, tail))
    return found, [*_problems(foreign, wrapped, prefixless, named)]


def _without_adapter_name(parts: Sequence[str], tails: re.Pattern[str]) -> tuple[str, str]:
    tail = ".".join(parts)
    if tails.fullmatch(tail) is None:
        for i in range(1, len(parts)):
            shorter = ".".join([*parts[:i], *parts[i + 1 :]])
            if tails.fullmatch(shorter):
                return shorter, parts[i]
    return tail, ""


def _without_saved_name(parts: Sequence[str]) -> tuple[str, str]:
    """``score.modules_to_save.default`` → ``score``, ``default``."""
    if "modules_to_save" in parts[1:]:
        at = parts.index("modules_to_save", 1)
        if at + 1 < len(parts):
            return ".".join([*parts[:at], *parts[at + 2 :]]), parts[at + 1]
    return ".".join(parts), ""


def _problems(
    foreign: dict[str, list[str]], wrapped: Sequence[str], prefixless: Sequence[str], named: dict[str, str]
) -> Iterable[Finding]:
    for maker, names in foreign.items():
        yield error(
            "foreign-names",
            f"{len(names)} tensors are named as {maker} names them, not PEFT: {some(names)}",
            where=names[0],
            fix="convert the adapter to PEFT's format first",
        )
    if wrapped:
        yield error(
            "wrapped-name",
            f"{len(wrapped)} tensors carry the name of a wrapper that is not there on load: {some(wrapped)}",
            where=wrapped[0],
            fix="remove _orig_mod. and _fsdp_wrapped_module. from the names, or save the unwrapped model",
        )
    if prefixless:
        yield error(
            "missing-prefix",
            f"{len(prefixless)} tensors do not start with {PREFIX}, so PEFT would drop them without a word: "
            f"{some(prefixless)}",
            where=prefixless[0],
            fix=f"rename them to {PREFIX}<module path>, or save the adapter with PeftModel.save_pretrained",
        )
    if named:
        names = list(named)
        yield error(
            "adapter-name-in-key",
            f"{len(names)} tensors carry the adapter's name ({named[names[0]]}), so PEFT drops them without a word "
            f"unless it loads the adapter under that name: {some(names)}",
            where=names[0],
            fix="save the adapter with PeftModel.save_pretrained, not torch.save or model.state_dict()",
        )
