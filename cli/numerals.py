"""Numbers as people write them, and nothing else that Python would take for one: no underscores, no digits of other scripts."""

from __future__ import annotations

import re

#: What is no finite number is one here, for whoever asked to refuse it by name.
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE
)


def number(text: str) -> float | None:
    """``-0.7``, ``.5``, ``2e-1``; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text) else None
