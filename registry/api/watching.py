"""What an operator sees of a server: a line for each request, and counters.

A line is a JSON document on stderr. It has the path without its query and without a signature that stands for a token, and
nothing of the headers but the request's id: what lets somebody in never reaches a log. Look-ups that are answered from memory
are counted and not written.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("adapters.requests")
PLAIN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Of a path, what a counter may tell apart: whoever asks for many paths must not make many counters.
_AREAS = re.compile(r"/(?:v1/[a-z-]+|v2|api/[a-z-]+|xet|healthz|readyz|metrics)")
#: Whoever has such a path needs no token, see :mod:`registry.api.hub_protocol.signing`.
_SIGNED = re.compile(r"\A(/+_(?:signed|lfs)/+)[^/]+")

#: No answer is a page: nothing in it is to be run, shown inside another page, or taken for what it is not called.
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
)


#: Where the workers of one server keep their counters together; set by whoever starts them, before they import anything.
TOGETHER = "PROMETHEUS_MULTIPROC_DIR"
#: Kept answers are put on the counter in steps of this: a worker that is not asked for its counters is so many behind.
_STEP = 256


class Counters:
    """Of this process; what is shown is the sum over all workers of the server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "adapters_requests", "Requests that were answered.", ["method", "area", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "adapters_request_seconds", "From the request to the end of its answer.", ["area"], registry=self._registry
        )
        self._kept = Counter(
            "adapters_kept_answers",
            f"Look-ups that were answered from memory, beside those above; up to {_STEP - 1} of each worker still to come.",
            registry=self._registry,
        )
        self._sequence = Gauge(
            "adapters_catalog_sequence",
            "Of the last change to the catalog.",
            registry=self._registry,
            multiprocess_mode="max",
        )
        self._given = 0

    def shown(self, sequence: int) -> bytes:
        """In Prometheus' text format; ``sequence`` is where the catalog is."""
        self._sequence.set(sequence)
        self._put_kept()
        if TOGETHER not in os.environ:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)

    def count_kept(self) -> None:
        """An answer was given from memory."""
        self._given += 1
        if self._given >= _STEP:
            self._put_kept()

    def _put_kept(self) -> None:
        self._kept.inc(self._given)
        self._given = 0

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        match = _AREAS.match(path)
        area = match[0] if match else "hub files"
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known, area, str(status)).inc()
        self._seconds.labels(area).observe(seconds)


def log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("adapters").setLevel(logging.INFO)


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
        scope.setdefault("state", {})["request_id"] = request_id.decode()
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
            path = _SIGNED.sub(r"\1{signature}", scope["path"])
            line = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 4)}
            _log.info("%s", json.dumps({**line, "request": request_id.decode()}))
