"""Moments as texts that compare as the moments do: ISO 8601 in UTC, to the microsecond, ending in ``Z``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def stamp(moment: datetime) -> str:
    """Of a moment that names its zone."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    return stamp(datetime.now(UTC))


def days_from_now(days: int) -> str:
    return stamp(datetime.now(UTC) + timedelta(days=days))
