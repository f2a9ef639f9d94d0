"""What was read of versions lately, by one worker.

A transaction elsewhere is asked for once more with each of its steps, see :mod:`registry.catalog.remote`: a version with tags and
scores would be read for each of them again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.operations.describe import AdapterPackage

#: How many are kept, twice as many as transactions may be under way, and for how many seconds: a base that they were held against
#: may come to be on this machine.
_MOST, _LIFETIME = 16, 60.0


class Descriptions:
    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[float, AdapterPackage]] = OrderedDict()
        self._lock = Lock()

    def of(self, key: Hashable, read: Callable[[], AdapterPackage]) -> AdapterPackage:
        """``key`` is all that the answer hangs on, but for the machine. What ``read`` raises is not kept."""
        with self._lock:
            at, package = self._known.get(key, (0.0, None))
        if package is None or time.monotonic() - at > _LIFETIME:
            at, package = time.monotonic(), read()
            with self._lock:
                self._known[key] = at, package
                self._known.move_to_end(key)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        return package
