"""HEAD for whatever answers GET: the same answer, without its body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Blobs, and files of the Hub's protocol, are answered to HEAD by their own routes, which do not read what nobody gets.
_PLAIN = re.compile(r"/(?:v1/(?!blobs/).*|api/models/.*|healthz|readyz|metrics|docs)?", re.DOTALL)


class Heads:
    """Middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not _PLAIN.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        is_over = False

        async def without_body(message: Message) -> None:
            nonlocal is_over
            if message["type"] == "http.response.start":
                await send(message)
            elif not is_over:
                is_over = True
                await send({"type": "http.response.body", "body": b""})

        await self._app({**scope, "method": "GET"}, receive, without_body)
