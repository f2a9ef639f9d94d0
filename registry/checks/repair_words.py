"""What was changed in a copy, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """``rule`` is the stable id of the kind of change, ``what`` one sentence about it."""

    rule: str
    what: str

    def document(self) -> dict[str, str]:
        return {"rule": self.rule, "what": self.what}
