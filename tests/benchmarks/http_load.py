"""A load generator for keep-alive HTTP/1.1: so many connections, each with one request at a time.

It must not be what is measured, so it knows as much of HTTP as the answers of the contestants need: a status line, headers with
a Content-Length, a body. Everything else ends the run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    statuses: dict[str, int]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], start: int, until: float, done: asyncio.Future[None]) -> None:
        self._requests, self._next, self._until, self._done = requests, start, until, done
        self._data = b""
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._at = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(_END)
        if head < 0:
            return
        status = self._data[9:12].decode()
        length = 0
        if status != "304":
            where = self._data.lower().index(b"content-length:", 0, head)
            length = int(self._data[where + 15 : self._data.index(b"\r", where)])
        if len(self._data) < head + 4 + length:
            return
        self._data = self._data[head + 4 + length :]
        now = time.perf_counter()
        self.latencies.append(now - self._at)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    made, endings = [], []
    for index in range(connections):
        done = loop.create_future()
        _, connection = await loop.create_connection(
            lambda index=index, done=done: _Connection(requests, index * 7, start + seconds, done), "127.0.0.1", port
        )
        made.append(connection)
        endings.append(done)
    await asyncio.gather(*endings)
    lasted = time.perf_counter() - start
    latencies = sorted(latency for connection in made for latency in connection.latencies)
    statuses: dict[str, int] = {}
    for connection in made:
        for status, count in connection.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    cut = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [latencies[0]] * 99
    return Load(len(latencies), lasted, cut[49], cut[98], statuses)


def request(method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{key}: {value}" for key, value in (headers or {}).items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + _END + body


def load(port: int, requests: Sequence[bytes], *, connections: int = 16, seconds: float = 3.0) -> Load:
    """In a process of its own, so that the caller's threads do not slow it."""
    document = {"port": port, "requests": [each.decode() for each in requests], "connections": connections, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.http_load"],
        input=json.dumps(document).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Load(**json.loads(done.stdout))


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    found = asyncio.run(
        _run(asked["port"], [text.encode() for text in asked["requests"]], asked["connections"], asked["seconds"])
    )
    print(json.dumps(asdict(found)))
