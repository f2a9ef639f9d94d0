"""Texts that people write beside what is theirs to name: how long they may be, and that they do not steer a terminal.

The bounds hold for what is written from now on; what a registry has already is read whatever it is.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from registry.errors import InvalidValueError

_LAYOUT = "\n\t\r"


@dataclass(frozen=True, slots=True)
class Wording:
    """A kind of text, and how many characters it has at least and at most."""

    kind: str
    least: int
    most: int

    def checked(self, text: str) -> str:
        """The same text. Raises InvalidValueError."""
        if not self.least <= len(text) <= self.most:
            bounds = f"{self.least} to {self.most:,}" if self.least else f"at most {self.most:,}"
            raise InvalidValueError(self.kind, text, f"{bounds} characters, not {len(text):,}")
        if any(unicodedata.category(character) == "Cc" and character not in _LAYOUT for character in text):
            raise InvalidValueError(self.kind, text, "a text without control characters")
        return text


REASON = Wording("reason", 1, 1000)
NOTE = Wording("note", 0, 10_000)
BASE_NAME = Wording("name of a base model", 1, 1000)
REVISION = Wording("revision", 0, 200)
RULE = Wording("name of a rule", 1, 200)
#: What a finding says.
PROSE = Wording("text of a finding", 0, 10_000)
#: Of a search or a gate.
CONDITION = Wording("condition", 0, 1000)

METRIC = Wording("metric", 1, 200)
TASK = Wording("task", 0, 200)
SUITE = Wording("suite", 0, 200)
SPLIT = Wording("split", 0, 200)
FILTER = Wording("filter", 0, 200)
SOURCE = Wording("source of a score", 0, 1000)
