"""Module paths in the order in which people count."""

from __future__ import annotations


def natural(path: str) -> tuple[tuple[bool, int, str], ...]:
    """A sorting key: ``layers.2`` before ``layers.10``."""
    # Only ASCII digits are numbers; int() would refuse more than 4,300 of them.
    return tuple(
        (True, int(part), part) if part.isascii() and part.isdecimal() and len(part) < 19 else (False, 0, part)
        for part in path.split(".")
    )
