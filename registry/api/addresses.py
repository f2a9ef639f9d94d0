"""The server's own address, as its clients see it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


def public_url(request: HTTPConnection) -> str:
    """As configured, else as this request was addressed. No slash at the end. Raises InvalidInputError for a Host that is none."""
    configured: str = request.app.state.settings.public_url
    if configured:
        return configured.rstrip("/")
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise InvalidInputError(f"the Host header is {host!r:.80}, expected a name or an address", code="invalid-host")
    return f"{request.url.scheme}://{host}"
