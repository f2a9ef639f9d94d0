"""Reasons against a plan, gathered until all of them are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from registry.checks.misfit import Misfit, error
from registry.plans.combining import EXACTLY, Blend


@dataclass(kw_only=True)
class Refusals:
    problems: list[Misfit] = field(default_factory=list)

    def refuse(self, rule: str, message: str, *, fix: str, where: str | None = None, target: str | None = None) -> None:
        self.problems.append(error(rule, message, fix=fix, where=where, target=target))

    def require_count(self, blend: Blend, given: int) -> None:
        """Of adapters that have a weight: some methods take so many and no other number."""
        wanted = EXACTLY.get(blend.method)
        if wanted is not None and given != wanted:
            self.refuse(
                "other-count",
                f"{blend.method} is a way between {wanted} adapters, and {given} have a weight",
                fix="take karcher, which is the same for any number",
            )
