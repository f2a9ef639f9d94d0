"""Answers that were encoded once and hold until something changes that they are about.

An answer to a look-up is a function of the request (path, query, host, token) and of the catalog's content. So it is kept with
the moment at which it was begun, and given again as long as nothing happened since to its adapter, or to anything at all if it is
about more than one: no routing, no validation, no query. A write by any process is noticed, so no answer is ever stale (see
:mod:`registry.api.freshness`); tokens lie in the catalog too, so a revoked one is noticed as well. What expires by the clock is
not kept beyond that moment.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from registry.api import problems
from registry.api.conditions import matches, require_match
from registry.api.watching import PLAIN_ID
from registry.errors import RegistryError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from registry.api.freshness import Freshness, Moment
    from registry.api.watching import Counters

_MAX_BODY = 256 << 10
_KEPT = 20_000
_KEPT_BYTES = 64 << 20
#: Headers of the request that an answer may depend on.
_DEPENDS = (b"host", b"authorization", b"x-forwarded-host", b"x-forwarded-proto")
#: Set by a route whose answer is not to be kept: it depends on more, on the clock for example.
DO_NOT_KEEP = "no-store"

#: Paths of answers that are about one adapter and nothing else. All that is known of a version is also of its parents: whether the
#: caller may read them.
_OF_ONE_ADAPTER = re.compile(
    r"/v1/(?:resolve|adapters)/([^/]+)/([^/]+)(?!.*/lineage)(?!/versions/[^/]+/?\Z)(?=/|\Z)", re.ASCII
)

_Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    begun: Moment
    adapter: str | None  #: the key of the one it is about
    until: float  #: seconds since the epoch
    etag: str
    start: Message
    body: Message
    not_modified: Message

    @property
    def size(self) -> int:
        return len(self.body["body"]) + 1024


class EncodedAnswers:
    """Middleware. ``prefixes`` are the paths whose successful answers to GET are kept."""

    def __init__(self, app: ASGIApp, *, prefixes: Collection[str], freshness: Freshness, counters: Counters) -> None:
        self._app = app
        self._prefixes = tuple(prefixes)
        self._freshness = freshness
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._bytes = 0
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(self._prefixes):
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        key = (scope["raw_path"], scope["query_string"], *(value for name, value in headers if name in _DEPENDS))
        try:
            if not self._freshness.is_current():
                await to_thread.run_sync(self._freshness.catch_up)
        except RegistryError:  # the catalog cannot be asked, which the route finds too, and says
            await self._app(scope, receive, send)
            return
        answer = self._answers.get(key)
        if answer is None or not self._freshness.holds(answer.begun, answer.adapter) or answer.until < time.time():
            answer = await self._make(key, scope, receive, send)
            if answer is None:
                return
        else:
            self._counters.count_kept()
        try:
            require_match(_said(headers, b"if-match"), answer.etag)
        except RegistryError as error:
            await problems.of_error(error)(scope, receive, send)
            return
        wanted = _said(headers, b"if-none-match")
        given = next((value for name, value in headers if name == _REQUEST_ID), b"")
        unchanged = wanted is not None and matches(wanted, answer.etag)
        start = answer.not_modified if unchanged else answer.start
        if given and PLAIN_ID.fullmatch(given):
            start = {**start, "headers": [*start["headers"], (_REQUEST_ID, given)]}
        await send(start)
        await send(_NOTHING if unchanged else answer.body)

    async def _make(self, key: _Key, scope: Scope, receive: Receive, send: Send) -> _Answer | None:
        """None if it was sent already: it is no answer to keep."""
        begun, adapter = self._freshness.now, _adapter_in(scope["path"])
        start: Message | None = None
        passing = False
        whole: _Answer | None = None
        state = scope.setdefault("state", {})

        async def watch(message: Message) -> None:
            nonlocal start, passing, whole
            if passing:
                await send(message)
            elif message["type"] == "http.response.start":
                start = message
            elif start is not None:
                if start["status"] == 200 and not message.get("more_body") and len(message["body"]) <= _MAX_BODY:
                    whole = _encoded(begun, adapter, state.get("valid_until", math.inf), start, message)
                if whole is None:
                    passing = True
                    await send(start)
                    await send(message)

        await self._app(scope, receive, watch)
        if whole is not None and not _says_do_not_keep(whole.start):
            self._keep(key, whole)
        return whole

    def _keep(self, key: _Key, answer: _Answer) -> None:
        before = self._answers.pop(key, None)
        self._bytes += answer.size - (before.size if before else 0)
        self._answers[key] = answer
        while len(self._answers) > _KEPT or self._bytes > _KEPT_BYTES:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= oldest.size


_REQUEST_ID = b"x-request-id"
_NOTHING: Message = {"type": "http.response.body", "body": b""}


def _encoded(begun: Moment, adapter: str | None, until: float, start: Message, body: Message) -> _Answer:
    headers = [each for each in start["headers"] if each[0] != _REQUEST_ID]  # of the request that it was made for
    etag = next((value for name, value in headers if name == b"etag"), None)
    if etag is None:
        etag = etag_of(body["body"]).encode()
        headers.append((b"etag", etag))
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"private, no-cache"))
    unchanged = [(name, value) for name, value in headers if name not in (b"content-length", b"content-type")]
    return _Answer(
        begun,
        adapter,
        until,
        etag.decode("latin-1"),
        {**start, "headers": headers},
        {"type": "http.response.body", "body": bytes(body["body"])},
        {"type": "http.response.start", "status": 304, "headers": unchanged},
    )


def etag_of(body: bytes | bytearray) -> str:
    """Of an answer that has no other."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _adapter_in(path: str) -> str | None:
    match = _OF_ONE_ADAPTER.match(path)
    return f"{match[1]}/{match[2]}".lower() if match else None


def _said(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)


def _says_do_not_keep(start: Message) -> bool:
    return any(name == b"cache-control" and DO_NOT_KEEP.encode() in value for name, value in start["headers"])
