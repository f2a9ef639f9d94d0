"""A gate: the scores that must hold before an alias may move, and what came of asking.

The law: a gate is closed unless every one of its conditions is seen to hold. A score that is missing, or that is not a
number, never counts as a pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from typing import Self

from registry.domain import texts
from registry.domain.evaluation import NOISE, Evaluation
from registry.domain.query import MetricCondition, MetricName
from registry.errors import GateClosedError, InvalidInputError, InvalidValueError

#: What stands behind the last colon is meant as a tolerance, unless it cannot be: ``pass@k:k=1`` is the name of a metric.
_TOLERANCE = re.compile(r"[^/=]*")


#: Of a gate.
MOST_CONDITIONS = 200


class Reason(StrEnum):
    """Why a condition holds, or why it does not."""

    MET = "met"
    NOT_WORSE = "not-worse"
    WITHIN_TOLERANCE = "within-tolerance"
    WITHIN_NOISE = "within-noise"
    NO_BASELINE = "no-baseline"
    NOT_MET = "not-met"
    REGRESSION = "regression"
    MISSING = "missing"
    NOT_A_NUMBER = "not-a-number"

    @property
    def holds(self) -> bool:
        return self not in (Reason.NOT_MET, Reason.REGRESSION, Reason.MISSING, Reason.NOT_A_NUMBER)


@dataclass(frozen=True, slots=True)
class NoRegression:
    """``acc`` or ``acc:0.01``: not worse than the baseline by more than the tolerance, which is in the unit of the score. A
    metric with a colon of its own needs one: ``f1:macro:0``."""

    name: MetricName
    tolerance: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        metric, colon, tail = texts.CONDITION.checked(text).rpartition(":")
        if not colon or not _TOLERANCE.fullmatch(tail):
            return cls(MetricName.parse(text))
        try:
            tolerance = float(tail)
        except ValueError:
            tolerance = inf
        if not 0 <= tolerance < inf:
            raise InvalidValueError(
                "no-regression condition",
                text,
                "METRIC or METRIC:TOLERANCE, such as acc:0.01",
                hint=f"{tail.strip()!r:.40} is no number from 0; a metric whose own name has a colon needs one: f1:macro:0",
            )
        return cls(MetricName.parse(metric), tolerance)

    def __str__(self) -> str:
        name = str(self.name)
        _, colon, tail = name.rpartition(":")
        has_colon = bool(colon) and _TOLERANCE.fullmatch(tail) is not None
        return f"{name}:{self.tolerance:g}" if self.tolerance or has_colon else name


@dataclass(frozen=True, slots=True)
class Gate:
    """``minimums`` are about the value itself, whatever its standard error; ``<`` and ``<=`` make them maximums.

    ``against`` is what the candidate must not be worse than: an alias of the same adapter, or a reference. ``noise`` is how
    many combined standard errors a difference may have and still be chance.
    """

    minimums: tuple[MetricCondition, ...] = ()
    no_regressions: tuple[NoRegression, ...] = ()
    against: str | None = None
    noise: float = NOISE

    def __post_init__(self) -> None:
        if (count := len(self.minimums) + len(self.no_regressions)) > MOST_CONDITIONS:
            raise InvalidInputError(
                f"a gate of {count} conditions, expected at most {MOST_CONDITIONS}", code="too-many-conditions"
            )

    @property
    def empty(self) -> bool:
        return not self.minimums and not self.no_regressions


@dataclass(frozen=True, slots=True)
class GateCheck:
    """A condition held against one score. ``noise`` is the difference that chance may make, None where it is unknown."""

    condition: str
    reason: Reason
    sentence: str
    score: Evaluation | None = None
    baseline: Evaluation | None = None
    noise: float | None = None

    @property
    def holds(self) -> bool:
        return self.reason.holds

    @property
    def measured(self) -> Evaluation | None:
        """What tells which score it is about."""
        return self.score or self.baseline

    def document(self) -> dict[str, object]:
        keys = ("suite", "task", "metric", "filter", "split")
        return {
            "condition": self.condition,
            "holds": self.holds,
            "reason": self.reason.value,
            "sentence": self.sentence,
            **{key: self.measured.document()[key] if self.measured else None for key in keys},
            "value": _finite(self.score.value if self.score else None),
            "stderr": _finite(self.score.stderr if self.score else None),
            "baseline": _finite(self.baseline.value if self.baseline else None),
            "baseline_stderr": _finite(self.baseline.stderr if self.baseline else None),
            "noise": _finite(self.noise),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """``against`` is the version that was compared with, None if there was none."""

    reference: str
    against: str | None
    checks: tuple[GateCheck, ...]

    @property
    def holds(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)

    @property
    def failure(self) -> GateClosedError | None:
        return None if self.holds else GateClosedError(self)

    def document(self) -> dict[str, object]:
        return {
            "reference": self.reference,
            "against": self.against,
            "holds": self.holds,
            "conditions": [check.document() for check in self.checks],
        }

    def facts(self) -> Mapping[str, object]:
        """What the audit keeps beside the move of an alias."""
        conditions: dict[str, list[str]] = {}
        for check in self.checks:
            conditions.setdefault(check.condition, []).append(check.sentence)
        return {"against": self.against, "conditions": conditions}


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and isfinite(value) else None
