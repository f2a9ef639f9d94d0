"""Two or more versions, measured by the same yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.catalog.protocol import Catalog
from registry.domain.evaluation import Evaluation, exceeds_noise
from registry.domain.names import Reference
from registry.domain.version import Version


@dataclass(frozen=True, slots=True)
class Difference:
    """``other`` against the first version. ``exceeds_stderr`` is None where a standard error is unknown: |Δ| > √(se₁²+se₂²)."""

    delta: float
    better: bool | None
    exceeds_stderr: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured: the latest evaluation of each version, None where it was not measured; differences to the first."""

    evaluations: tuple[Evaluation | None, ...]
    differences: tuple[Difference | None, ...]

    @property
    def example(self) -> Evaluation:
        return next(each for each in self.evaluations if each is not None)


@dataclass(frozen=True, slots=True)
class Comparison:
    versions: tuple[Version, ...]
    rows: tuple[Row, ...]

    def document(self) -> dict[str, object]:
        return {
            "versions": [version.reference for version in self.versions],
            "rows": [
                {
                    **{key: row.example.document()[key] for key in ("suite", "task", "metric", "filter", "split")},
                    "higher_is_better": row.example.higher_is_better,
                    "values": [each.value if each else None for each in row.evaluations],
                    "stderrs": [each.stderr if each else None for each in row.evaluations],
                    "differences": [
                        {"delta": each.delta, "better": each.better, "exceeds_stderr": each.exceeds_stderr}
                        if each
                        else None
                        for each in row.differences
                    ],
                }
                for row in self.rows
            ],
        }


def compare(references: Sequence[Reference], *, catalog: Catalog) -> Comparison:
    """Only what has the same suite, task, metric, filter and split stands in one row. Raises NotFoundError."""
    versions = tuple(catalog.resolve(reference) for reference in references)
    latest = [{each.key: each for each in catalog.evaluations(version)} for version in versions]
    keys = sorted({key for each in latest for key in each})
    return Comparison(versions, tuple(_row(tuple(each.get(key) for each in latest)) for key in keys))


def _row(evaluations: tuple[Evaluation | None, ...]) -> Row:
    first = evaluations[0]
    return Row(evaluations, tuple(difference(first, other) for other in evaluations[1:]))


def difference(first: Evaluation | None, other: Evaluation | None) -> Difference | None:
    if first is None or other is None:
        return None
    delta = other.value - first.value
    direction = first.higher_is_better if first.higher_is_better is not None else other.higher_is_better
    better = None if direction is None or delta == 0 else (delta > 0) == direction
    return Difference(delta, better, exceeds_noise(first, other))
