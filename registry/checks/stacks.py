"""Matrices that one spelling of a base holds as one and the other as several.

The experts of a mixture are one matrix each on disk (``experts.3.w1``) and one stack of matrices in memory
(``experts.gate_up_proj``); a few families store gate and up projection (``weights_in``), or those of the attention (``Wqkv``), as
one matrix that memory takes apart. An adapter may have been trained on either form, and either form of the base may be the one at
hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.formats.base_classes import Stack, splits, stacks

#: Digits of an expert's number.
_LONGEST_NUMBER = 6

#: For each expert the matrices that lie below one another in the stack.
Experts = tuple[tuple[ModuleSpec, ...], ...]


def stacked(model_type: str | None, modules: Mapping[str, ModuleSpec]) -> dict[str, Experts]:
    """The fused parameter of every layer that has all its parts for experts 0, 1, 2 …"""
    found: dict[str, Experts] = {}
    for stack in stacks(model_type):
        found |= _stacked(stack, modules)
    return found


def _stacked(stack: Stack, modules: Mapping[str, ModuleSpec]) -> dict[str, Experts]:
    experts: dict[str, dict[int, dict[str, ModuleSpec]]] = {}
    for name, module in modules.items():
        above, _, part = name.rpartition(".")
        holder, _, number = above.rpartition(".")
        if part in stack.parts and number.isdecimal() and holder.endswith("experts"):
            experts.setdefault(holder, {}).setdefault(int(number), {})[part] = module
    found = {}
    for holder, numbered in experts.items():
        whole = range(len(numbered))
        if all(len(numbered.get(number, ())) == len(stack.parts) for number in whole):
            found[f"{holder}.{stack.parameter}"] = tuple(
                tuple(numbered[number][part] for part in stack.parts) for number in whole
            )
    return found


def fused(path: str, experts: Experts) -> ModuleSpec:
    """The stack that the matrices make."""
    shapes = [module.shape for module in experts[0]]
    known = [shape for shape in shapes if shape is not None and len(shape) == 2]
    if len(known) < len(shapes):
        return ModuleSpec(path, ModuleKind.PACKED, None)
    return ModuleSpec(path, ModuleKind.EXPERTS, (len(experts), sum(rows for rows, _ in known), known[0][1]))


def other_form(name: str, model_type: str | None, modules: Mapping[str, ModuleSpec]) -> ModuleSpec | None:
    """The module of that name where the base holds it as part of another, or in parts."""
    above, _, last = name.rpartition(".")
    for stack in stacks(model_type):
        if last in stack.parts:
            return _of_one_expert(name, stack, modules)
    for split in splits(model_type):
        if last in split.parts:
            whole = modules.get(f"{above}.{split.parameter}")
            return _share(name, whole, len(split.parts)) if whole is not None else None
        if last == split.parameter:
            parts = [modules.get(f"{above}.{part}") for part in split.parts]
            return _joined(name, [part for part in parts if part is not None], len(parts))
    return None


def is_taken_apart(name: str, model_type: str | None) -> bool:
    """Whether memory has no module of this name, but its parts."""
    last = name.rpartition(".")[2]
    return any(last == split.parameter for split in splits(model_type))


def _of_one_expert(name: str, stack: Stack, modules: Mapping[str, ModuleSpec]) -> ModuleSpec | None:
    """``experts.3.w1`` of a base that has ``experts.gate_up_proj``: as many of its rows as each part has."""
    holder, _, number = name.rpartition(".")[0].rpartition(".")
    whole = modules.get(f"{holder}.{stack.parameter}")
    if whole is None or not (number.isascii() and number.isdecimal()) or len(number) > _LONGEST_NUMBER:
        return None
    if whole.kind is ModuleKind.PACKED or whole.shape is None:
        return ModuleSpec(name, ModuleKind.PACKED, None)
    if whole.kind is not ModuleKind.EXPERTS or int(number) >= whole.shape[0]:
        return None
    return ModuleSpec(name, ModuleKind.LINEAR, (whole.shape[1] // len(stack.parts), whole.shape[2]))


def _share(name: str, whole: ModuleSpec, parts: int) -> ModuleSpec:
    if whole.shape is None or len(whole.shape) != 2:
        return ModuleSpec(name, ModuleKind.PACKED, None, whole.has_bias)
    return ModuleSpec(name, ModuleKind.LINEAR, (whole.shape[0] // parts, whole.shape[1]), whole.has_bias)


def _joined(name: str, parts: Sequence[ModuleSpec], wanted: int) -> ModuleSpec | None:
    shapes = [part.shape for part in parts if part.shape is not None and len(part.shape) == 2]
    if len(parts) < wanted:
        return None
    if len(shapes) < wanted:
        return ModuleSpec(name, ModuleKind.PACKED, None)
    rows = sum(shape[0] for shape in shapes)
    return ModuleSpec(name, ModuleKind.LINEAR, (rows, shapes[0][1]), all(part.has_bias for part in parts))
