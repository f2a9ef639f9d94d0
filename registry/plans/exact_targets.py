"""Modules by one regular expression that takes no other: what is alike in several layers is said once.

``model.layers.0.q_proj`` and ``model.layers.1.q_proj`` become ``model\\.layers\\.(?:0|1)\\.q_proj``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NUMBERED = re.compile(r"((?:.*?\.)?)([0-9]+)(\..+)")


def expression_of(paths: Iterable[str]) -> str:
    """Its ``re.fullmatch`` takes these paths and no other."""
    layers: dict[str, dict[str, list[str]]] = {}
    parts = []
    for path in paths:
        match = _NUMBERED.fullmatch(path)
        if match is None:
            parts.append(re.escape(path))
        else:
            above, number, below = match.groups()
            layers.setdefault(above, {}).setdefault(number, []).append(below)
    return "|".join([*parts, *_numbered(layers)])


def _numbered(layers: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    for above, by_number in layers.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for number, found in by_number.items():
            alike.setdefault(tuple(found), []).append(number)
        for below, numbers in alike.items():
            yield f"{re.escape(above)}{_one_of(numbers)}{_one_of(below)}"


def _one_of(words: Iterable[str]) -> str:
    choices = "|".join(map(re.escape, words))
    return f"(?:{choices})" if "|" in choices else choices
