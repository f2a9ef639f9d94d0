"""How often somebody may do something: token buckets in memory, one for each who."""

from __future__ import annotations

import math
from threading import Lock

#: So many are remembered; beyond that the fullest are forgotten.
_REMEMBERED = 10_000


class Limits:
    """``per_minute`` on average, and twice as many at once."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60.0
        self._capacity = 2.0 * per_minute
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def take(self, who: str, now: float) -> int | None:
        """``now`` in seconds. None if it was allowed, else how many whole seconds to wait."""
        with self._lock:
            left = self._left_of(who, now)
            if left < 1:
                return self._pause(left)
            if len(self._left) >= _REMEMBERED and who not in self._left:
                self._left = dict(sorted(self._left.items(), key=lambda each: each[1][0])[: _REMEMBERED // 2])
            self._left[who] = (left - 1, now)
            return None

    def _left_of(self, who: str, now: float) -> float:
        left, at = self._left.get(who, (self._capacity, now))
        return min(self._capacity, left + (now - at) * self._rate)

    def _pause(self, left: float) -> int:
        return max(1, math.ceil((1 - left) / self._rate))
