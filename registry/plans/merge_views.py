"""Projections that one model stores as one matrix and another as several: the same rows under other names.

Phi-3 has ``qkv_proj`` and ``gate_up_proj``; its re-split mirrors, and trainers that took it for a Llama, have ``q_proj``,
``k_proj``, ``v_proj``, ``gate_proj`` and ``up_proj``. Since the parts lie one below the other, a LoRA of a part changes
those rows of the whole, and a LoRA of the whole changes each part by its rows of B. The order of the parts is a fact about a
model type, never guessed: a fused matrix is taken apart only for the types listed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from registry.domain.base_model import BaseModelSpec, ModuleKind, ModuleSpec

_QKV = ("q_proj", "k_proj", "v_proj")
_GATE_UP = ("gate_proj", "up_proj")
#: Model type → the matrices that it stores fused, and their parts in the order of the rows.
_FUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "phi3": {"qkv_proj": _QKV, "gate_up_proj": _GATE_UP},
    "glm": {"gate_up_proj": _GATE_UP},
    "glm4": {"gate_up_proj": _GATE_UP},
}
#: What an adapter of the fused form calls matrices that this base stores apart.
_APART = {"qkv_proj": _QKV, "gate_up_proj": _GATE_UP}


@dataclass(frozen=True, slots=True)
class Part:
    """``rows`` rows of a view, from ``first`` on, are those of the stored module from ``stored`` on."""

    module: ModuleSpec
    stored: int
    first: int
    rows: int


def with_views(base: BaseModelSpec) -> tuple[BaseModelSpec, Mapping[str, tuple[Part, ...]]]:
    """The base with its projections under their other names as well, and for each of these where it lies."""
    modules = {module.path: module for module in base.modules}
    views: dict[str, tuple[Part, ...]] = {}
    found: list[ModuleSpec] = []
    for view, parts in (*_parts(base.model_type, modules), *_wholes(modules)):
        if view.path not in modules:
            found.append(view)
            views[view.path] = parts
    return (replace(base, modules=(*base.modules, *found)) if found else base), views


def _parts(model_type: str | None, modules: Mapping[str, ModuleSpec]) -> Iterator[tuple[ModuleSpec, tuple[Part, ...]]]:
    fused = _FUSED.get(model_type or "", {})
    for path, module in modules.items():
        above, _, name = path.rpartition(".")
        sizes = _sizes(fused.get(name, ()), module, modules.get(f"{above}.o_proj"))
        first = 0
        for part, rows in sizes:
            view = ModuleSpec(f"{above}.{part}", ModuleKind.VIEW, (rows, _inputs(module)), module.has_bias)
            yield view, (Part(module, first, 0, rows),)
            first += rows


def _sizes(parts: tuple[str, ...], module: ModuleSpec, output: ModuleSpec | None) -> list[tuple[str, int]]:
    """Halves; or queries as wide as what the output projection reads, and keys and values of one width."""
    if not parts or module.shape is None or len(module.shape) != 2:
        return []
    rows = module.shape[0]
    if parts == _GATE_UP:
        return [(part, rows // 2) for part in parts] if rows % 2 == 0 else []
    queries = output.shape[1] if output is not None and output.shape is not None else 0
    keys, rest = divmod(rows - queries, 2)
    return list(zip(parts, (queries, keys, keys), strict=True)) if queries and keys > 0 and not rest else []


def _wholes(modules: Mapping[str, ModuleSpec]) -> Iterator[tuple[ModuleSpec, tuple[Part, ...]]]:
    for path in modules:
        above, _, name = path.rpartition(".")
        for whole, parts in _APART.items():
            if name != parts[0]:
                continue
            held = [modules.get(f"{above}.{part}") for part in parts]
            known = [one for one in held if one is not None and one.kind is ModuleKind.LINEAR and one.shape is not None]
            if len(known) < len(parts) or len({_inputs(one) for one in known}) > 1:
                continue
            first, found = 0, []
            for one in known:
                rows = one.shape[0] if one.shape else 0
                found.append(Part(one, 0, first, rows))
                first += rows
            bias = all(one.has_bias for one in known)
            yield ModuleSpec(f"{above}.{whole}", ModuleKind.VIEW, (first, _inputs(known[0])), bias), tuple(found)


def _inputs(module: ModuleSpec) -> int:
    return module.shape[1] if module.shape is not None and len(module.shape) == 2 else 0
