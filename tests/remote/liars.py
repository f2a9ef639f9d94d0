"""Servers on loopback that answer as no registry does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Whoever is asked: method and path, the handler itself for what is no document.
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Answer

    def log_message(self, *_args: object) -> None: ...

    def _all(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with suppress(BrokenPipeError, ConnectionResetError):
            type(self).answer(self)

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = _all  # noqa: N815

    def say(self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def document(self, document: object, *, status: int = 200) -> None:
        self.say(json.dumps(document).encode(), status=status)

    def pieces(self, pieces: Iterator[bytes], *, status: int = 200) -> None:
        """Without a length."""
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def liar(answer: Answer) -> Iterator[str]:
    """Its address."""

    class Mine(Request):
        pass

    Mine.answer = staticmethod(answer)  # type: ignore[assignment]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def version(**other: Any) -> dict[str, Any]:
    """A version as a catalog answers it."""
    known = {"adapter": "b/open", "number": 1, "digest": "sha256:" + "1" * 64, "created_at": "2026-01-01T00:00:00Z", "summary": {},
             "note": None, "yanked": None, "aliases": [], "tags": {}, "findings": [], "score": None}  # fmt: skip
    return {**known, **other}
