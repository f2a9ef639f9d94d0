"""``rank_pattern`` and ``alpha_pattern``: a value for the modules whose name a regular expression matches.

PEFT looks the two up independently, takes the first key that matches in the order of the file, and the default if none
does (``peft/tuners/lora/model.py``, ``_create_and_replace``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from registry.domain.finding import Finding
from registry.variants.anatomy import PatternMatcher
from registry.variants.findings import some, warning

N = TypeVar("N", bound=float)


class PatternTable(Generic[N]):
    """Answers for names, and remembers what the answers showed about the patterns."""

    def __init__(self, field: str, values: Mapping[str, N], default: N, patterns: PatternMatcher) -> None:
        self._field = field
        self._values = values
        self._keys = tuple(values)
        self._default = default
        self._patterns = patterns
        self._used: set[str] = set()
        self._overlaps: dict[tuple[str, str], str] = {}

    def value(self, name: str) -> N | None:
        """What PEFT would use for the module; None if that hangs on a pattern that could not be evaluated."""
        if not self._keys:
            return self._default
        matching = self._patterns.matching_keys(self._keys, name)
        self._used.update(matching)
        found = self._values[matching[0]] if matching else self._default
        for later in matching[1:]:
            if self._values[later] != found:
                self._overlaps.setdefault((matching[0], later), name)
        unresolved = self._patterns.unresolved
        if unresolved:
            before = self._keys[: self._keys.index(matching[0])] if matching else self._keys
            if any(key in unresolved and self._values[key] != found for key in before):
                return None
        return found

    def findings(self) -> Iterable[Finding]:
        """Call it when all names have been asked about."""
        for (first, later), name in self._overlaps.items():
            yield warning(
                "overlapping-patterns",
                f"{self._field}: {first!r} ({self._values[first]}) and {later!r} ({self._values[later]}) both match "
                f"{name}; the first in the file wins, and PEFT sorts them when it saves",
                where=f"{self._field}[{first!r}]",
                fix="make the patterns exclude each other",
            )
        unresolved = self._patterns.unresolved
        for key in self._keys:
            if key in unresolved:
                yield warning(
                    "pattern-unresolved",
                    f"{self._field}: {key!r:.200} could not be evaluated: {unresolved[key]}",
                    where=f"{self._field}[{key!r:.200}]",
                    fix="write the pattern without look-around, back-references and nested repeats",
                )
        idle = [key for key in self._keys if key not in self._used and key not in unresolved]
        if idle:
            yield warning(
                "pattern-matches-nothing",
                f"{self._field}: {some([repr(key) for key in idle])} matched no target",
                where=self._field,
                fix="correct or remove it; a key is matched against the end of the module's path, after a dot",
            )
