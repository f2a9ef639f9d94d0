"""Short ways to write the findings of an anatomy."""

from __future__ import annotations

from collections.abc import Sequence

from registry.domain.finding import Finding, Severity


def error(rule: str, message: str, *, where: str | None = None, fix: str) -> Finding:
    return Finding(rule, Severity.ERROR, message, where, fix)


def warning(rule: str, message: str, *, where: str | None = None, fix: str) -> Finding:
    return Finding(rule, Severity.WARNING, message, where, fix)


def info(rule: str, message: str, *, where: str | None = None, fix: str) -> Finding:
    return Finding(rule, Severity.INFO, message, where, fix)


def some(names: Sequence[str], limit: int = 3) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
