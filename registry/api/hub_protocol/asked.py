"""A request as its handler sees it.

Handlers are plain functions in threads of their own: they ask the catalog and the disk, which wait. What is uploaded is read from
there too, chunk by chunk as it comes; any other body is here before there is a thread for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from anyio import fail_after, from_thread

from registry.api.addresses import public_url
from registry.api.hub_protocol.errors import SlowBodyError, TooLargeError
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Message, Receive

    from registry.api.callers import Caller
    from registry.api.hub_protocol.repositories import Repository
    from registry.api.hub_protocol.services import Services
    from registry.api.settings import Settings

#: Seconds for which a body is waited in all, and bytes for which it gets one more.
_PATIENCE, _PACE = 60.0, 1 << 10
#: Bytes; of nobody in particular it is less.
MAX_JSON, MAX_ANYBODY = 8 << 20, 1 << 20


class GoneError(Exception):
    """The client is no longer there: nobody to answer."""


@dataclass(frozen=True)
class Asked:
    """``params`` are the parts of the path that the route names; ``services`` is what all requests share."""

    request: Request
    receive: Receive
    params: Mapping[str, str]
    services: Services
    maker: Caller | None = None
    about: Repository | None = None

    @property
    def caller(self) -> Caller:
        """Who asks; not of routes that are signed, see :mod:`~registry.api.hub_protocol.signing`."""
        return cast("Caller", self.maker)

    @property
    def repository(self) -> Repository:
        """What the path names; of routes that name one."""
        return cast("Repository", self.about)

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def address(self) -> str:
        """The server's own, without a slash at the end."""
        return public_url(self.request)

    def flag(self, name: str) -> bool:
        """``True``, ``true`` and ``1``: generations of clients differ."""
        return self.request.query_params.get(name, "").lower() in ("true", "1")

    def chunks(self, *, limit: int) -> Iterator[bytes]:
        """The body. Raises TooLargeError beyond ``limit`` bytes, SlowBodyError, GoneError."""
        encoding = self.request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise CompressedBodyError(encoding)
        announced = self.request.headers.get("content-length", "")
        if announced.isascii() and announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
            raise TooLargeError("the body", limit)
        total, more, coming = 0, True, _Coming(self.receive)
        while more:
            message = from_thread.run(coming.next)
            chunk, more = message.get("body", b""), message.get("more_body", False)
            total += len(chunk)
            if total > limit:
                raise TooLargeError("the body", limit)
            if chunk:
                yield chunk

    async def awaited(self, *, limit: int = MAX_JSON) -> Asked:
        """With the whole body here, as it is: whoever reads it looks at more. Raises TooLargeError, SlowBodyError, GoneError."""
        body, more, coming = bytearray(), True, _Coming(self.receive)
        while more:
            message = await coming.next()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise TooLargeError("the body", limit)

        async def again() -> Message:
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replace(self, receive=again)

    def body(self, *, limit: int = MAX_JSON) -> bytes:
        return b"".join(self.chunks(limit=limit))

    def json(self, *, limit: int = MAX_JSON) -> Mapping[str, Any]:
        """The body as a JSON object. Raises InvalidInputError."""
        data = self.body(limit=limit)
        try:
            document = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError):
            raise InvalidInputError("the body is no JSON", code="invalid-json") from None
        if not isinstance(document, dict):
            raise InvalidInputError("the body is no JSON object", code="invalid-json")
        return document


class CompressedBodyError(InvalidInputError):
    http_status = 415
    default_code = "compressed-body"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"the body has Content-Encoding {encoding!r:.60}", hint="send it as it is")


class _Coming:
    """A body on its way: whoever sends it may pause, and may not keep a place for ever."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._spare = _PATIENCE

    async def next(self) -> Message:
        """Raises SlowBodyError, GoneError."""
        begun = time.monotonic()
        try:
            with fail_after(self._spare):
                message = await self._receive()
        except TimeoutError:
            raise SlowBodyError(_PACE) from None
        if message["type"] == "http.disconnect":
            raise GoneError
        waited = time.monotonic() - begun
        self._spare = min(_PATIENCE, self._spare - waited + len(message.get("body", b"")) / _PACE)
        return message


def text_of(document: Mapping[str, Any], key: str, *, default: str | None = None) -> str:
    """A field that must be text. Raises InvalidInputError."""
    value = document.get(key, default)
    if not isinstance(value, str):
        raise InvalidInputError(f"{key} is {value!r:.80}, expected text", code="invalid-body")
    return value
