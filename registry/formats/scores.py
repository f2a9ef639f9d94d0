"""What all results formats share: which numbers are scores, how sure they are, when and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite

from registry.domain.moments import stamp
from registry.errors import MalformedResultsError
from registry.formats.plain_data import finite, number, text

_STDERR = "_stderr"

#: Numbers that stand beside scores in a task's row: sizes, not qualities. ``bypass`` is lm-eval's "no metric" (999).
_NOT_SCORES = frozenset({"alias", "bypass", "n_samples", "sample_count", "sample_len", "samples"})


def score(value: object, what: str, *, where: str) -> float | None:
    """``value`` if it is a number, None if it is something else. Raises for a number that is not finite."""
    found = number(value)
    if found is not None and not isfinite(found):
        raise MalformedResultsError(
            where,
            f"{what} is {value!s:.40}, expected a finite number",
            code="score-not-finite",
            hint="run that evaluation again; if it cannot be measured, remove it from the file",
        )
    return found


def standard_error(value: object) -> float | None:
    """None for lm-eval's ``"N/A"``, and for the NaN that a single example gives."""
    found = finite(value)
    return found if found is not None and found >= 0 else None


def scores_with_stderr(
    row: Mapping[str, object], task: str, *, where: str
) -> Iterator[tuple[str, float, float | None]]:
    """``{"acc": 0.5, "acc_stderr": 0.01}`` → ``("acc", 0.5, 0.01)``: lm-eval's old form and lighteval's."""
    for metric, value in row.items():
        if metric in _NOT_SCORES or metric.endswith(_STDERR):
            continue
        found = score(value, f"{metric} of task {task}", where=where)
        if found is not None:
            yield metric, found, standard_error(row.get(metric + _STDERR))


def utc_time(value: object) -> str | None:
    """A Unix time or an ISO 8601 text (UTC where it names no zone) in the form the catalog writes; else None."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(text(value) or "")
            moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        else:
            seconds = finite(value)
            if seconds is None:
                return None
            moment = datetime.fromtimestamp(seconds, UTC)
        return stamp(moment)
    except (ValueError, OverflowError, OSError):
        return None


def file_name(where: str) -> str:
    """What an evaluation's ``source`` says: the last part of ``where``."""
    return where.replace("\\", "/").rstrip("/").rpartition("/")[2] or where
