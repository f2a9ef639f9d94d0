"""Looking into plain data (what JSON and YAML give) whose shape somebody else decided.

A look never raises: what is of another type is as good as absent. Readers that must refuse do so themselves, where they
know what to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def text(value: object) -> str | None:
    """A string with something in it besides white space, without the white space around it."""
    return (value.strip() or None) if isinstance(value, str) else None


def texts(value: object) -> tuple[str, ...]:
    """One string or a list of them, each once, in order: ``tags: lora`` and ``tags: [lora]`` mean the same."""
    found = [value] if isinstance(value, str) else sequence(value)
    return tuple(dict.fromkeys(word for word in map(text, found) if word))


def number(value: object) -> float | None:
    """A number, finite or not. ``true`` is not one; an integer too large for a float is infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def finite(value: object) -> float | None:
    found = number(value)
    return found if found is not None and isfinite(found) else None


def count(value: object) -> int | None:
    """A whole number above zero; -1 and 0 are how many writers say "unknown"."""
    found = finite(value)
    return int(found) if found is not None and found > 0 and found.is_integer() else None
