"""Conditions of requests (RFC 9110, 13.1): what they are together, and when they hold.

Several lines of one name are one list (RFC 9110, 5.3). Who reads a header by its name is given one of them, so they are put
together before anybody reads.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from registry.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    Headers = Sequence[tuple[bytes, bytes]]

_LISTS = (b"if-match", b"if-none-match")
#: One of a list, or none where somebody wrote two commas. Quotes that somebody left away are missed by nobody.
_ITEM = re.compile(r'[ \t]*(?:(W/)?(?:"([\x21\x23-\x7e\x80-\xff]*)"|([\x21\x23-\x2b\x2d-\x7e]+))[ \t]*)?(?:,|\Z)')


class PreconditionFailedError(ConflictError):
    """``condition`` is the header that does not hold, as the request has it."""

    http_status = 412
    default_code = "precondition-failed"

    def __init__(self, condition: str) -> None:
        super().__init__(
            f"{condition:.100} does not hold of what is there now; nothing was done",
            hint="look at it again, and send the ETag that is true now",
        )


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


def etags(name: str, text: str) -> list[tuple[bool, str]]:
    """The list in the header ``name``: whether each is a weak one, and what it says between its quotes (RFC 9110, 8.8.3). Raises
    InvalidInputError."""
    found, at = [], 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            raise InvalidInputError(
                f'{name} is {text!r:.80}, expected ETags in their quotes, such as "3", or *', code="invalid-etag"
            )
        tag = item[2] if item[2] is not None else item[3]
        if tag is not None:
            found.append((item[1] is not None, tag))
        at = item.end()
    return found


def require_match(text: str | None, etag: str | None, *, is_there: bool = True) -> None:
    """That an If-Match holds (RFC 9110, 13.1.1): strongly, of one or several. ``etag`` is that of what is there, in its quotes,
    None where it has none. Raises PreconditionFailedError, InvalidInputError."""
    if text is None:
        return
    if text.strip() == "*":
        holds = is_there
    else:
        holds = any(not weak and f'"{tag}"' == etag for weak, tag in etags("If-Match", text))
    if not holds:
        raise PreconditionFailedError(f"If-Match: {text}")


def require_none_match(text: str | None, etag: str | None, *, is_there: bool) -> None:
    """That an If-None-Match holds of a request that is to change something (RFC 9110, 13.1.2): weakly, of one or several. Raises
    PreconditionFailedError, InvalidInputError."""
    if text is None:
        return
    if text.strip() == "*":
        holds = not is_there
    else:
        holds = etag is None or all(f'"{tag}"' != etag.removeprefix("W/") for _, tag in etags("If-None-Match", text))
    if not holds:
        raise PreconditionFailedError(f"If-None-Match: {text}")


def matches(wanted: str, etag: str) -> bool:
    """What the If-None-Match of a look-up says (RFC 9110, 13.1.2): weakly, of one or several. One that cannot be read does not."""
    with suppress(InvalidInputError):
        return wanted.strip() == "*" or any(f'"{tag}"' == etag for _, tag in etags("If-None-Match", wanted))
    return False
