"""Until when something holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def days_from_now(days: int) -> str:
    """ISO 8601 in UTC, as the catalog writes times, so that the two can be compared as text."""
    moment = datetime.now(UTC) + timedelta(days=days)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
