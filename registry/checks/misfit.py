"""Findings of the rules here: about one place of the base, with what it would need and what the adapter has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from registry.domain.finding import Finding, Severity

#: What reports call a severity.
WORDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


@dataclass(frozen=True, slots=True)
class Misfit(Finding):
    """``target`` is the module's path as the adapter says it; ``where`` the tensor or the config's field."""

    target: str | None = None
    expected: str | None = None
    found: str | None = None


def misfit(
    severity: Severity,
    rule: str,
    message: str,
    *,
    fix: str,
    where: str | None = None,
    target: str | None = None,
    expected: str | None = None,
    found: str | None = None,
) -> Misfit:
    return Misfit(rule, severity, message, where, fix, target, expected, found)


error = partial(misfit, Severity.ERROR)
warning = partial(misfit, Severity.WARNING)
note = partial(misfit, Severity.INFO)
