"""What an operator sees of a server: a line for each request, and counters.

A line is a JSON document on stderr. It has the path without its query, and nothing of the headers but the request's id: tokens
never reach a log. Look-ups that are answered from memory are counted and not written.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("adapters.requests")
PLAIN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Of a path, what a counter may tell apart: whoever asks for many paths must not make many counters.
_AREAS = re.compile(r"/(?:v1/[a-z-]+|v2|api/[a-z-]+|xet|healthz|readyz|metrics)")

#: No answer is a page: nothing in it is to be run, shown inside another page, or taken for what it is not called.
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
)


class Counters:
    """One set for each process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "adapters_requests", "Requests that were answered.", ["method", "area", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "adapters_request_seconds", "From the request to the end of its answer.", ["area"], registry=self.registry
        )

        self._kept = Counter(
            "adapters_kept_answers",
            "Look-ups that were answered from memory, beside those above.",
            registry=self.registry,
        )
        self._sequence = Gauge(
            "adapters_catalog_sequence", "Of the last change to the catalog.", registry=self.registry
        )
        self._given = 0

    def look_up(self, given: int, sequence: int) -> None:
        """How many answers were given from memory so far, and where the catalog is; asked for when somebody looks."""
        self._kept.inc(given - self._given)
        self._given = given
        self._sequence.set(sequence)

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        match = _AREAS.match(path)
        area = match[0] if match else "hub files"
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known, area, str(status)).inc()
        self._seconds.labels(area).observe(seconds)


class Watched:
    """Middleware: gives every request an id, or takes over one that is plain."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if PLAIN_ID.fullmatch(given) else secrets.token_hex(8).encode()
        status = 500

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given_already = {name for name, _ in message["headers"]}
                more = [(b"x-request-id", request_id), *(each for each in _SAFE if each[0] not in given_already)]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            await self._app(scope, receive, answering)
        finally:
            seconds = time.perf_counter() - start
            self._counters.count(scope["method"], scope["path"], status, seconds)
            line = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
            _log.info("%s", json.dumps({**line, "request": request_id.decode()}))
