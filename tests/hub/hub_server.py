"""The part of the Hub's wire protocol that looking up a base needs, on loopback, over directories. Weights are only given in
ranges, and what was sent of them is counted."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "abcd"


class HubServer(ThreadingHTTPServer):
    """``root/OWNER/NAME`` are the repositories; each has one commit, which ``main`` and ``v2`` mean."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.sent: dict[str, int] = {}
        self.gated: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        if match := re.fullmatch(r"api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._model(match[1], match[2] or "main")
        elif match := re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._answer(404, b"{}")

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def log_message(self, *_arguments: object) -> None: ...

    def _model(self, repository: str, revision: str) -> None:
        folder = self.server.root / repository
        if not folder.is_dir():
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in {"main", "v2", COMMIT}:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            self._answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, repository: str, revision: str, name: str) -> None:
        if repository in self.server.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        if revision != COMMIT:
            self._answer(307, b"", {"Location": f"/{repository}/resolve/{COMMIT}/{name}"})
            return
        path = self.server.root / repository / name
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data = path.read_bytes()
        about = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            about["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self._answer(206, data[start : end + 1], about, name)
        else:
            self._answer(200, data, about, name)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, name: str = "") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.server.sent[name] = self.server.sent.get(name, 0) + len(body)
            self.wfile.write(body)


@contextmanager
def serving(root: Path) -> Iterator[HubServer]:
    server = HubServer(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
