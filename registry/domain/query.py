"""What to look for: one value, asked by the command line, the Python API and the server alike."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import TYPE_CHECKING, Self

from registry.domain import texts
from registry.domain.digest import Digest
from registry.errors import InvalidInputError, InvalidNameError, InvalidValueError

if TYPE_CHECKING:
    from registry.domain.version import Version

_CONDITION = re.compile(r"\s*(?P<metric>[^<>=!]+?)\s*(?P<operator><=|>=|==|=|<|>)\s*(?P<value>\S+)\s*")
_RANKS = re.compile(r"(?P<low>[0-9]{1,9})?(?P<dots>\.\.)?(?P<high>[0-9]{1,9})?", re.ASCII)
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}

#: Rows of a page at most.
MAX_PAGE = 1000
#: Conditions of one kind.
MOST_CONDITIONS = 50

#: Sorts that are not metrics, and whether the natural order is the largest first.
SORTS = {"name": False, "created": True, "rank": True, "bytes": True, "parameters": True}


@dataclass(frozen=True, slots=True)
class MetricName:
    """``acc``, or ``arc_easy/acc`` for the metric of one task."""

    metric: str
    task: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        task, slash, metric = text.strip().rpartition("/")
        if not metric:
            raise InvalidNameError("metric", text, "METRIC or TASK/METRIC")
        return cls(metric, task if slash and task else None)

    def __str__(self) -> str:
        return f"{self.task}/{self.metric}" if self.task else self.metric


@dataclass(frozen=True, slots=True)
class MetricCondition:
    """``acc>=0.8``: about the latest value of that metric for a version."""

    name: MetricName
    operator: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _CONDITION.fullmatch(texts.CONDITION.checked(text))
        try:
            value = float(match["value"]) if match else nan
        except ValueError:
            value = nan
        if match is None or not isfinite(value):
            raise InvalidValueError("metric condition", text, "METRIC, one of < <= = >= >, and a number: acc>=0.8")
        symbol = "==" if match["operator"] == "=" else match["operator"]
        return cls(MetricName.parse(match["metric"]), symbol, value)


@dataclass(frozen=True, slots=True)
class Visible:
    """Adapters whose name one of the patterns covers (see :class:`registry.domain.access.NamespacePattern`), and, with
    ``public``, those that are not private."""

    patterns: tuple[str, ...] = ()
    public: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Behind which row a page begins. ``keys`` are what that row was sorted by when it was given, to the last that tells equals
    apart, so that a page goes on where the one before it ended although the row has changed, has another name or is gone since, and
    nothing is looked up; without them they are."""

    reference: str
    keys: tuple[str | float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionQuery:
    """Every condition must hold. Without ``all_versions``, ``alias`` or ``parent`` a row is an adapter's newest version not yanked.

    ``visible`` is what the asker may see, None for everything. ``base`` is compared by canonical id, ``targets`` must all be
    there, ``ranks`` are inclusive bounds. ``parent`` is the digest of a version: rows are what was made from it and, without
    ``all_versions``, not yanked. ``after`` is where the page before ended.
    """

    text: str | None = None
    base: str | None = None
    ranks: tuple[int | None, int | None] = (None, None)
    targets: tuple[str, ...] = ()
    peft_type: str | None = None
    task_type: str | None = None
    tags: tuple[tuple[str, str | None], ...] = ()
    alias: str | None = None
    metrics: tuple[MetricCondition, ...] = ()
    parent: Digest | None = None
    sort: str | None = None
    reverse: bool = False
    limit: int = 50
    after: Position | None = None
    all_versions: bool = False
    namespace: str | None = None
    visible: Visible | None = None

    def __post_init__(self) -> None:
        for kind, conditions in (("targets", self.targets), ("tags", self.tags), ("metrics", self.metrics)):
            if len(conditions) > MOST_CONDITIONS:
                raise InvalidInputError(
                    f"a search for {len(conditions)} {kind}, expected at most {MOST_CONDITIONS}",
                    code="too-many-conditions",
                )
        stated = [self.text, self.base, self.peft_type, self.task_type, self.alias, self.sort, self.namespace]
        for text in (*stated, *self.targets, *(part for tag in self.tags for part in tag)):
            if text is not None:
                texts.CONDITION.checked(text)

    def seen_by(self, visible: Visible | None) -> Self:
        return replace(self, visible=visible)

    @property
    def is_by_name(self) -> bool:
        return self.sort in (None, "name")

    def behind(self, last: Version) -> Self:
        """The next page, where ``last`` is the last row of this query's answer."""
        return replace(self, after=Position(last.reference, self._keys(last)))

    def _keys(self, version: Version) -> tuple[str | float | None, ...]:
        if self.is_by_name:
            return version.adapter.key, version.number
        if version.place is None:
            return ()
        if self.sort == "created":
            return version.created_at, version.place
        if self.sort in SORTS:
            return getattr(version.summary, self.sort or ""), version.place
        return (version.score.value, version.place) if version.score is not None else ()


def parse_ranks(text: str) -> tuple[int | None, int | None]:
    """``16`` → (16, 16); ``8..64``, ``8..`` and ``..64`` are inclusive ranges."""
    match = _RANKS.fullmatch(text)
    if match is None or (match["low"] is None and match["high"] is None):
        raise InvalidValueError("rank filter", text, "a rank or a range: 16, 8..64, 8.., ..64")
    low, high = (int(side) if side else None for side in (match["low"], match["high"]))
    if not match["dots"]:
        return (low, low)
    if low is not None and high is not None and low > high:
        raise InvalidValueError("rank filter", text, "the smaller rank first: 8..64")
    return (low, high)
