"""A wire to a server that fails at a byte of one's choice: it ends, is reset, or falls slow."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

#: Towards the server, or from it.
Way = Literal["up", "down"]
Trouble = Literal["end", "reset", "slow"]
_RESET = struct.pack("ii", 1, 0)  # linger no time: what is not sent is thrown away, and the peer gets an RST


@dataclass
class Wire:
    """Bytes are counted over all connections; each fault happens once, in the order given, after so many more bytes."""

    server: str
    address: str = ""
    carried: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    faults: list[tuple[Way, int, Trouble]] = field(default_factory=list)
    happened: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, way: Way, after: int, how: Trouble) -> None:
        self.faults.append((way, after, how))

    def _allowed(self, way: Way, wanted: int) -> tuple[int, Trouble | None]:
        """How many of the bytes still pass, and what happens behind them."""
        with self._lock:
            passing, trouble = wanted, None
            if self.faults and self.faults[0][0] == way:
                _, after, how = self.faults[0]
                if after <= wanted:
                    passing, trouble = after, how
                    self.faults.pop(0)
                    self.happened += 1
                else:
                    self.faults[0] = (way, after - wanted, how)
            self.carried[way] += passing
            return passing, trouble

    def _carry(self, way: Way, source: socket.socket, sink: socket.socket) -> bool:
        """What there is; whether anything may follow. Nobody else reads from either end, so that closing closes at once."""
        data = source.recv(1 << 16)
        passing, trouble = self._allowed(way, len(data)) if data else (0, None)
        sink.sendall(data[:passing])
        if trouble == "slow":
            for start in range(passing, len(data), 1024):
                time.sleep(0.002)
                sink.sendall(data[start : start + 1024])
        if trouble == "reset":
            for each in (source, sink):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return bool(data) and trouble in (None, "slow")

    def _connect(self, near: socket.socket) -> None:
        parts = urlsplit(self.server)
        with near, socket.create_connection((parts.hostname or "", parts.port or 0)) as far:
            try:
                while True:
                    readable, _, _ = select.select([near, far], [], [])
                    for each in readable:
                        if not self._carry("up" if each is near else "down", each, far if each is near else near):
                            return
            except OSError:
                pass  # one of the two has gone without a word


@contextmanager
def wire(server: str) -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Wire(server, f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return  # the listener is closed
                threading.Thread(target=made._connect, args=(near,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
