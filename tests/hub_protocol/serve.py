"""A server for clients in other processes: the real application on a free port, which it prints, with every request on record.

``cut`` in the store's directory makes it break off the first answer whose path holds that file's first line, after as many bytes as
its second says; then the file is removed.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from registry.api.app import create_app
from registry.api.hub_protocol import reading
from registry.api.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CutError(Exception):
    """Nobody catches it, so the connection breaks."""


class OnRecord:
    def __init__(self, app: ASGIApp, log: Path, cut: Path) -> None:
        self._app, self._log, self._cut = app, log, cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["raw_path"].decode()
        limit = self._limit(path) if scope["method"] == "GET" else None
        sent = 0

        async def watch(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                self._write(scope, path, message)
            elif limit is not None:
                body = message.get("body", b"")
                if sent + len(body) > limit:
                    await send({"type": "http.response.body", "body": body[: limit - sent], "more_body": True})
                    raise CutError
                sent += len(body)
            await send(message)

        await self._app(scope, receive, watch)

    def _limit(self, path: str) -> int | None:
        try:
            fragment, count = self._cut.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        if fragment not in path:
            return None
        self._cut.unlink()
        return int(count)

    def _write(self, scope: Scope, path: str, message: Message) -> None:
        asked = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        told = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        entry = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode(),
            "status": message["status"],
            "range": asked.get("range"),
            "authorized": "authorization" in asked,
            "headers": told,
        }
        with open(self._log, "a") as log:
            log.write(json.dumps(entry) + "\n")


def main(location: str, options: str) -> None:
    wanted = json.loads(options)
    if page := wanted.pop("page", None):
        reading._PAGE = page
    settings = Settings(location=Path(location), **wanted)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", wanted.get("port", 0)))
    listening.listen(128)  # who comes before the application is ready waits
    print(listening.getsockname()[1], flush=True)
    app = OnRecord(create_app(settings), Path(location) / "requests.log", Path(location) / "cut")
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
