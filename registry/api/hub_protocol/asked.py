"""A request as its handler sees it.

Handlers are plain functions in threads of their own: they ask the catalog and the disk, which wait. A body is read from there too,
chunk by chunk as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

#: Seconds without a byte after which a body is given up.
_PATIENCE = 60.0
MAX_JSON = 8 << 20


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
        total, more = 0, True
        while more:
            try:
                message = from_thread.run(_next, self.receive)
            except TimeoutError:
                raise SlowBodyError(_PATIENCE) from None
            if message["type"] == "http.disconnect":
                raise GoneError
            chunk, more = message.get("body", b""), message.get("more_body", False)
            total += len(chunk)
            if total > limit:
                raise TooLargeError("the body", limit)
            if chunk:
                yield chunk

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


async def _next(receive: Receive) -> Message:
    with fail_after(_PATIENCE):
        return await receive()


def text_of(document: Mapping[str, Any], key: str, *, default: str | None = None) -> str:
    """A field that must be text. Raises InvalidInputError."""
    value = document.get(key, default)
    if not isinstance(value, str):
        raise InvalidInputError(f"{key} is {value!r:.80}, expected text", code="invalid-body")
    return value
