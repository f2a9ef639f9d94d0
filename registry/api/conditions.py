"""Conditions of requests (RFC 9110, 13.1): what they are together, and when they hold.

Several lines of one name are one list (RFC 9110, 5.3). Who reads a header by its name is given one of them, so they are put
together before anybody reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    Headers = Sequence[tuple[bytes, bytes]]

_LISTS = (b"if-match", b"if-none-match")


class ConditionsTogether:
    """Middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name in _LISTS:
                if sum(key == name for key, _ in scope["headers"]) > 1:
                    rest = [(key, value) for key, value in scope["headers"] if key != name]
                    scope = {**scope, "headers": [*rest, (name, whole(scope["headers"], name))]}
        await self._app(scope, receive, send)


def whole(headers: Headers, name: bytes) -> bytes:
    """All that a header says; nothing if it is not there."""
    return b",".join(value for key, value in headers if key == name)


def matches(wanted: str, etag: str) -> bool:
    """What an If-None-Match says (RFC 9110, 13.1.2): weakly, of one or several."""
    return wanted.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in wanted.split(","))
