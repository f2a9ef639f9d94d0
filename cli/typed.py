"""What a person types where a version number is meant: ``3``, ``@3`` or ``v3``."""

from __future__ import annotations


def version_typed(text: str) -> int:
    """Raises InvalidNameError."""
    from registry.domain.names import version_number

    return version_number(text.removeprefix("@").removeprefix("v"))


def expected_version(text: str) -> int | None:
    """``--expect``: a version, or ``none`` for an alias that is not there."""
    return None if text == "none" else version_typed(text)
