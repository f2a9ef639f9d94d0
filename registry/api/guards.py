"""What no route needs to look at: requests to another host, and bodies that are too long, too slow, of nobody or no JSON.

A page in somebody's browser can send forms and text to any address, but no JSON without being allowed to; so a body of anything
else changes nothing. Blobs, whose bodies are any bytes, have rules of their own, and so does the Hub's protocol.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from anyio import fail_after, to_thread
from starlette.requests import HTTPConnection

from registry.api import problems
from registry.api.callers import MisdirectedRequestError, host_of
from registry.api.conditions import whole
from registry.api.settings import LOOPBACK
from registry.domain.access import Action
from registry.errors import DeniedError, InvalidInputError, RegistryError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from registry.api.callers import Gatekeeper
    from registry.api.settings import Settings

_JSON = re.compile(rb"application/(?:[a-z.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
#: Half of a character beyond the first 65,536.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PLAIN = re.compile(rb"(?:identity)?")
#: Bytes. A transaction may have hundreds of steps, each with a manifest.
_LONGEST, _LONGEST_TRANSACTION = 1 << 20, 16 << 20
#: Seconds that a body may take, and bytes for which it gets one more.
_PATIENCE, _PACE = 30.0, 16 << 10


class TooLongError(InvalidInputError):
    http_status = 413
    default_code = "too-large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit:,} bytes", hint="send less at a time")


class TooSlowError(InvalidInputError):
    http_status = 408
    default_code = "too-slow"

    def __init__(self, count: int) -> None:
        super().__init__(
            f"after {count:,} bytes the body came slower than {_PACE:,} bytes a second", hint="send it again"
        )


class NotJsonError(InvalidInputError):
    http_status = 415
    default_code = "content-type"

    def __init__(self, found: str) -> None:
        super().__init__(f"the body is {found!r:.80}, expected application/json without an encoding")


class NotTextError(InvalidInputError):
    default_code = "not-text"

    def __init__(self) -> None:
        super().__init__("the body is not text that can be kept", hint="write it in UTF-8")


class Guarded:
    """Middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, gatekeeper: Gatekeeper) -> None:
        self._app = app
        self._gatekeeper = gatekeeper
        self._hosts = frozenset(host.lower() for host in settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._require_host(scope)
            if _takes_json(scope) and _has_body(scope):
                receive = await _whole(scope, receive, await to_thread.run_sync(self._longest, scope))
        except RegistryError as error:
            answer = problems.of_error(error)
            if isinstance(error, TooSlowError):
                answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _require_host(self, scope: Scope) -> None:
        name = host_of(whole(scope["headers"], b"host").decode("latin-1"))
        if self._hosts and name not in self._hosts and name not in LOOPBACK:
            raise MisdirectedRequestError(name)

    def _longest(self, scope: Scope) -> int:
        """How long this caller's body may be, before a byte of it is read. Raises DeniedError, InvalidInputError."""
        caller = self._gatekeeper.caller(HTTPConnection(scope), writes=False)
        caller.require_anywhere(Action.READ)
        if scope["path"] != "/v1/transactions":
            return _LONGEST
        try:
            caller.require_anywhere(Action.PUSH)
        except DeniedError:
            return _LONGEST
        return _LONGEST_TRANSACTION


def _takes_json(scope: Scope) -> bool:
    path = scope["path"]
    sends_bytes = path.startswith(("/v1/blobs/", "/v1/uploads/")) and scope["method"] != "POST"
    return path.startswith("/v1/") and scope["method"] not in ("GET", "HEAD") and not sends_bytes


def _has_body(scope: Scope) -> bool:
    return whole(scope["headers"], b"content-length") not in (b"", b"0") or bool(
        whole(scope["headers"], b"transfer-encoding")
    )


async def _whole(scope: Scope, receive: Receive, limit: int) -> Receive:
    """The body, read and given again. Raises TooLongError, TooSlowError, NotJsonError."""
    length = whole(scope["headers"], b"content-length")
    if length.isdigit() and int(length[:20]) > limit:
        raise TooLongError(limit)
    begun, body = time.monotonic(), bytearray()
    while True:
        try:
            with fail_after(begun + _PATIENCE + len(body) / _PACE - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise TooSlowError(len(body)) from None
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLongError(limit)
        if not message.get("more_body"):
            break
    if body:
        for name, allowed in ((b"content-type", _JSON), (b"content-encoding", _PLAIN)):
            if not allowed.fullmatch(found := whole(scope["headers"], name)):
                raise NotJsonError(found.decode("latin-1"))
        _require_text(body)
    waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _require_text(body: bytearray) -> None:
    """Raises NotTextError for JSON that is not in UTF-8, or has half a character written as an escape: nothing can keep it."""
    try:
        body.decode()
        if b"\0" in body:
            raise NotTextError
        if _HALF.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeError:
        raise NotTextError from None
    except (ValueError, RecursionError):
        return  # whoever reads it says so
