"""What requests leave behind ends by the clock: whoever changes something next, now and then, removes what has ended.

Records of requests, markers of uploads and unfinished uploads are files of the server's own, and each keeper knows how long its own
live. None is removed while somebody is at work with it.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from anyio import to_thread

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

#: Seconds between two looks.
_EVERY = 600.0


class Keeper(Protocol):
    def sweep(self) -> None:
        """Remove what has ended."""


class Tidied:
    """Middleware."""

    def __init__(self, app: ASGIApp, *keepers: Keeper) -> None:
        self._app = app
        self._keepers = keepers
        self._last = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            now = time.monotonic()
            if now - self._last > _EVERY:
                self._last = now
                for keeper in self._keepers:
                    await to_thread.run_sync(keeper.sweep)
        await self._app(scope, receive, send)


def remove(path: Path) -> None:
    """Unless somebody is at work with it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
