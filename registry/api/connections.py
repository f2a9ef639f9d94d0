"""What may be asked of the server before there is a request: how many connections, how soon it begins, how long its headers are.

uvicorn's protocol over httptools bounds none of it.
"""

from __future__ import annotations

import resource
from collections import Counter
from threading import Event
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from registry.api import problems
from registry.api.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    import asyncio

    from starlette.responses import Response
    from uvicorn import Config
    from uvicorn.server import ServerState

#: Bytes of a request before its body.
_LONGEST_HEAD = 64 << 10
#: Seconds until a request that began has its headers, and until a connection has its first request.
_PATIENCE = 20.0
#: Seconds that a body gets on its way to a server that ends.
_FAREWELL = 3.0
#: Descriptors that are not connections: the catalog's, listeners, what the process was started with.
_OTHERS = 64
_MANY = 65_536
#: Of this server, in the state that uvicorn shares among its connections and gives to each request.
STATE = "connections"


class Connections:
    """Those of one server. ``ending`` is set when it is to end: answers that go on for ever look at it."""

    def __init__(self, settings: Settings) -> None:
        self.ending = Event()
        self.of_address: Counter[str] = Counter()
        self.most = _room()
        # Behind a proxy all addresses are the proxy's.
        self.most_of_address = 0 if settings.public_url else settings.connections_per_address

    def is_full_for(self, address: str, count: int) -> bool:
        """``count`` are there beside the one that asks."""
        if count >= self.most:
            return True
        is_bounded = self.most_of_address > 0 and address not in LOOPBACK
        return is_bounded and self.of_address[address] >= self.most_of_address


def raise_limit() -> None:
    """As many descriptors as the system lets this process have, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else min(hard, _MANY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _room() -> int:
    """A connection may need another descriptor: for the file that it is sent, or is being written."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else max(16, (soft - _OTHERS) // 2)


class Connection(HttpToolsProtocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if STATE not in app_state:
            app_state[STATE] = Connections(Settings.from_environment())
        super().__init__(config, server_state, app_state, _loop)
        self._all: Connections = app_state[STATE]
        self._address = ""
        self._is_in_head = False
        self._loose = 0  # bytes since the last head of a request, or piece of a body, was complete
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        is_full = self._all.is_full_for(self._address, len(self.connections) - 1)
        self._all.of_address[self._address] += 1
        if is_full:
            self._refuse(problems.problem(503, "too-many-connections", "there are too many connections"))
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_deadline()
        self._all.of_address[self._address] -= 1
        if self._all.of_address[self._address] <= 0:
            del self._all.of_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._loose += len(data)
        super().data_received(data)
        if self._loose > _LONGEST_HEAD:
            self.send_400_response("")
        elif not self._is_in_head and self._is_answering():
            self._unset_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._loose > _LONGEST_HEAD:
            length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if length > _LONGEST_HEAD:
                raise httptools.HttpParserError
        if not self._has_host():
            self._refuse(problems.problem(400, "invalid-host", "a request has one Host header"))
            raise httptools.HttpParserError
        self._loose, self._is_in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """For what is no request."""
        if self._loose > _LONGEST_HEAD:
            sentence = f"the headers are longer than {_LONGEST_HEAD:,} bytes"
            self._refuse(problems.problem(431, "headers-too-long", sentence))
        else:
            self._refuse(problems.problem(400, "invalid-request", "this is no HTTP request"))

    def shutdown(self) -> None:
        """Requests that are here are finished, those on their way must come soon."""
        self._all.ending.set()
        super().shutdown()
        if not self.transport.is_closing() and self.cycle.more_body:
            self.loop.call_later(_FAREWELL, self._end_body)

    def _end_body(self) -> None:
        if self.cycle.more_body:
            self.transport.close()

    def _has_host(self) -> bool:
        """Exactly one, or none before HTTP/1.1 (RFC 9112, 3.2): of two, a proxy might have looked at the other one."""
        count = sum(name == b"host" for name, _ in self.headers)
        return count == 1 or (count == 0 and self.parser.get_http_version() in ("0.9", "1.0"))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, answer: Response) -> None:
        """And close; the request before what is refused, if it came whole, gets its answer first."""
        if self.transport.is_closing():
            return
        if self._is_answering() and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not self._is_answering():
            headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
            lines = [STATUS_LINE[answer.status_code], *(b"%b: %b\r\n" % each for each in headers), b"\r\n"]
            self.transport.write(b"".join(lines) + bytes(answer.body))
        self.transport.close()

    def _set_deadline(self) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(_PATIENCE, self._close)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self._is_answering():  # the request before the one that does not come
            self._set_deadline()
        else:
            self.transport.close()
