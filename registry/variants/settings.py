"""Config values that several methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry.formats.adapter_config import AdapterConfig

#: Pairs of layer_replication; real ones have a dozen.
_MOST_SPANS = 1000
#: Names in modules_to_save; real ones have a few, or a few for each layer.
_MOST_SAVED = 1000


@dataclass(frozen=True, slots=True)
class Ranks:
    r: int
    pattern: Mapping[str, int]


def positive_ranks(config: AdapterConfig, default: int = 8, *, with_pattern: bool = True) -> Ranks:
    """``r`` and ``rank_pattern``. PEFT refuses a rank of zero or less as soon as a module has it."""
    r = config.integer("r", default)
    if r <= 0:
        raise config.refuse("r", r, "a positive whole number")
    pattern = config.integers_by_pattern("rank_pattern") if with_pattern else {}
    for key, value in pattern.items():
        if value <= 0:
            raise config.refuse(f"rank_pattern[{key!r}]", value, "a positive whole number")
    return Ranks(r, pattern)


def saved_modules(config: AdapterConfig) -> tuple[str, ...]:
    """``modules_to_save``: ends of module paths, with or without a dot before them, each once."""
    names = config.names("modules_to_save")
    if isinstance(names, str):
        raise config.refuse("modules_to_save", names, "a list of module names")
    if names is not None and len(names) > _MOST_SAVED:
        raise config.refuse("modules_to_save", f"{len(names):,} names", f"at most {_MOST_SAVED:,}")
    return tuple(dict.fromkeys(names or ()))


def layer_spans(config: AdapterConfig) -> list[tuple[int, int]]:
    """``layer_replication``: which layers of the base, from-until, the layers of the result are copies of."""
    value = config.raw.get("layer_replication") or []
    if isinstance(value, list) and len(value) > _MOST_SPANS:
        raise config.refuse("layer_replication", f"{len(value):,} pairs", f"at most {_MOST_SPANS:,}")
    spans: list[tuple[int, int]] = []
    for span in value if isinstance(value, list) else [value]:
        match span:
            case [int(start), int(end)] if 0 <= start < end:
                spans.append((start, end))
            case _:
                raise config.refuse("layer_replication", value, "pairs of layer numbers such as [[0, 4], [2, 5]]")
    return spans


def trained_biases(config: AdapterConfig) -> str:
    """``none``, ``all``, or the ``…_only`` that trains the biases of the targets."""
    value = config.raw.get("bias")
    if value is None:
        return "none"
    if not isinstance(value, str) or not (value in {"none", "all"} or value.endswith("_only")):
        raise config.refuse("bias", value, '"none", "all" or "lora_only"')
    return value
