"""What a check noticed about an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"  #: refused, unless the rule is allowed by name
    WARNING = "warning"  #: stored, and said
    INFO = "info"  #: worth knowing


@dataclass(frozen=True, slots=True)
class Finding:
    """``rule`` is the stable id (``rank-mismatch``); ``where`` the file, tensor or config key it is about."""

    rule: str
    severity: Severity
    message: str
    where: str | None = None
    fix: str | None = None

    def document(self) -> dict[str, str | None]:
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "message": self.message,
            "where": self.where,
            "fix": self.fix,
        }
