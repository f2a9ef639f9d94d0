"""``target_parameters``: LoRA on a bare parameter, such as the fused experts of a mixture.

PEFT wraps the module that holds the parameter once for each parameter it adapts, in the order in which the module
registers them, so the first registered is innermost: ``experts.base_layer.lora_A`` is ``gate_up_proj`` and
``experts.lora_A`` is ``down_proj``. With one wrapper the key does not name the parameter at all, only the config does
(``peft/tuners/tuners_utils.py``, ``_inject_parameters``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from registry.domain.finding import Finding
from registry.variants.findings import error, some, warning
from registry.variants.lora_layers import LoraLayer

#: The order in which transformers' fused experts register their parameters, all architectures of 5.x.
_REGISTERED = ("gate_up_proj", "gate_proj", "up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")


def wrapped_module(path: str) -> tuple[str, int]:
    """``experts.base_layer`` → ``experts``, 1."""
    depth = 0
    while path.endswith(".base_layer"):
        path = path.removesuffix(".base_layer")
        depth += 1
    return path, depth


def in_order(parameters: Iterable[str]) -> list[str] | None:
    """Parameters of one module as it registers them, the innermost wrapper's first; None where nobody knows."""
    found = list(parameters)
    if len(found) < 2:
        return found
    return sorted(found, key=_REGISTERED.index) if all(name in _REGISTERED for name in found) else None


def parameters_of(module: str, targets: Iterable[str]) -> list[str]:
    """Which parameters of the module ``target_parameters`` may mean, in the order given."""
    names = {
        target.rpartition(".")[2]: None
        for target in targets
        for full in (f"{module}.{target.rpartition('.')[2]}",)
        if full == target or full.endswith(f".{target}")
    }
    return list(names)


def _held_beside(candidates: list[str], wrappers: int) -> list[str]:
    """A name without its module (``gate_up_proj``) may mean a parameter of any module. Where that is too many, one that
    holds a plain parameter (a router's ``weight``) holds none of the experts' own."""
    plain = [name for name in candidates if name not in _REGISTERED]
    return plain if plain and len(candidates) > wrappers else candidates


def name_wrappers(
    module: str, layers: Sequence[LoraLayer], targets: Sequence[str]
) -> tuple[dict[str, str | None], list[Finding]]:
    """Layer path → parameter name, for the wrappers of one module; None where it cannot be told."""
    by_depth = sorted(layers, key=lambda layer: -wrapped_module(layer.path)[1])
    candidates = _held_beside(parameters_of(module, targets), len(by_depth))
    unnamed: dict[str, str | None] = {layer.path: None for layer in by_depth}
    where = next(iter(by_depth[0].tensors)).name
    if [wrapped_module(layer.path)[1] for layer in by_depth] != list(reversed(range(len(by_depth)))):
        return unnamed, [
            error(
                "orphan-factor",
                f"{where} belongs to an inner wrapper, and the outer ones are not there: the file is incomplete",
                where=where,
                fix="save or upload the adapter again",
            )
        ]
    if len(candidates) < len(by_depth):
        return unnamed, [
            error(
                "unknown-parameter",
                f"{module} is wrapped for {len(by_depth)} parameters, and target_parameters names {len(candidates)} of "
                "it; PEFT would drop the rest without a word",
                where=where,
                fix="complete target_parameters in adapter_config.json",
            )
        ]
    if len(candidates) > len(by_depth):
        return unnamed, [
            warning(
                "ambiguous-parameter",
                f"{module} is wrapped for {len(by_depth)} parameters, and target_parameters may mean "
                f"{some(candidates)}; which, the names in the file do not say",
                where=where,
                fix="name module and parameter in target_parameters: experts.down_proj",
            )
        ]
    if (ordered := in_order(candidates)) is not None:
        return dict(zip(unnamed, ordered, strict=True)), []
    return dict(zip(unnamed, candidates, strict=True)), [
        warning(
            "ambiguous-parameter",
            f"{module} is wrapped for {some(candidates)}; that it registers them in this order is taken from "
            "target_parameters, the file does not say",
            where=where,
            fix="list target_parameters in the order in which the module registers them",
        )
    ]
