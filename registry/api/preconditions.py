"""A change is made only where the conditions of its request hold: If-Match and If-None-Match, held against the ETag that the same
address hands out to the same caller (RFC 9110, 13.1).

They are looked at once it is known that the caller may do it, and before it is done (RFC 9110, 13.2.1). Looking and doing are two
moments: a change by somebody else between them is not noticed. Where that matters there is what is: aliases, whose conditions are
looked at in the transaction that moves them, and transactions, which say what they were answered before.

A request with an Idempotency-Key that was carried out is not held against what it made of the resource: its answer is given again.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import Header, Request
from starlette.types import Message

from registry.api.answers import etag_of
from registry.api.callers import Caller, Requires
from registry.api.conditions import require_match, require_none_match
from registry.api.once import Once
from registry.domain.access import Action
from registry.errors import UnavailableError

IfMatch = Annotated[
    str | None, Header(description="ETags of this address: only from one of them; `*`: if it is there.")
]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only if it is not there; ETags: from none of them.")]
#: What may stand in a scope before any routing.
_OF_A_REQUEST = (
    "type",
    "asgi",
    "http_version",
    "server",
    "client",
    "scheme",
    "path",
    "raw_path",
    "root_path",
    "extensions",
)
#: Headers of a request that say who asks, and where.
_OF_A_CALLER = (b"authorization", b"host", b"x-forwarded-host", b"x-forwarded-proto")


class Conditional(Requires):
    """:class:`Requires`, for a route that changes something. Raises PreconditionFailedError as well, and InvalidInputError for what
    is no list of ETags. It holds no thread while it looks, as the look takes one. ``keyed`` are routes that take an
    Idempotency-Key; the others do what they are asked again."""

    def __init__(self, action: Action, *, somewhere: bool = False, keyed: bool = False) -> None:
        super().__init__(action, somewhere=somewhere)
        self.keyed = keyed

    async def __call__(  # type: ignore[override]
        self, request: Request, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
    ) -> Caller:
        caller = await to_thread.run_sync(super().__call__, request)
        conditional = if_match is not None or if_none_match is not None
        if conditional and not (self.keyed and await to_thread.run_sync(_was_done, request, caller)):
            now = await _now(request)
            require_match(if_match, now.etag, is_there=now.is_there)
            require_none_match(if_none_match, now.etag, is_there=now.is_there)
        return caller


def _was_done(request: Request, caller: Caller) -> bool:
    once: Once = request.app.state.once
    key = request.headers.get("idempotency-key")
    return key is not None and once.was_done(caller, key)


@dataclass(frozen=True, slots=True)
class _Now:
    is_there: bool
    etag: str | None = None


async def _now(request: Request) -> _Now:
    """What a look at the same address finds. What cannot be looked at is there, without an ETag: whether it is, its route says.

    Raises UnavailableError.
    """
    headers = [each for each in request.scope["headers"] if each[0] in _OF_A_CALLER]
    method = "HEAD" if request.url.path.startswith("/v1/blobs/") else "GET"
    scope = {key: request.scope[key] for key in _OF_A_REQUEST if key in request.scope}
    scope |= {"method": method, "query_string": b"", "headers": headers, "state": {}}
    status, etag, body = 0, None, bytearray()

    async def nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def note(message: Message) -> None:
        nonlocal status, etag
        if message["type"] == "http.response.start":
            status = message["status"]
            etag = next((value.decode("latin-1") for key, value in message["headers"] if key == b"etag"), None)
        else:
            body.extend(message.get("body", b""))

    await request.app(scope, nothing, note)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnavailableError("what is there now cannot be looked at, which the request's conditions ask for")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _Now(is_there=True)
    return _Now(is_there=status == HTTPStatus.OK, etag=(etag or etag_of(body)) if status == HTTPStatus.OK else None)
