"""Another hub behind this one, for what is not here: base models, while ``HF_ENDPOINT`` points at us.

A redirect would not do: clients want the metadata of a file from the hub they asked, and some send it their token. So this server
asks upstream itself, with nothing of the caller's, and gives on what it was told. Nothing that speaks of Xet is given on, since
clients would take it as a way to read. A large file is not carried through here: its client is sent to where upstream keeps it.

Only what is in nobody's namespace here is passed through: a name that is ours never falls through to others.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx2
from starlette.responses import Response, StreamingResponse

from registry.api.addresses import public_url
from registry.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from starlette.requests import Request

#: Seconds; clients wait ten for an answer.
_PATIENCE = 9.0
_MAX_JSON = 32 << 20
_MAX_REDIRECTS = 5
_API = re.compile(r"/api/models(?:$|[/?])")
_PATHS_INFO = re.compile(r"/api/models/[^/]+(?:/[^/]+)?/paths-info/[^/]+")
_FILE = re.compile(r"/[^/]+(?:/[^/]+)?/(?:resolve|raw)/")
_XET = re.compile(r"xet", re.IGNORECASE)
_GIVEN_ON = (
    "content-type", "content-length", "content-range", "accept-ranges", "etag", "x-repo-commit", "x-linked-etag", "x-linked-size",
    "x-error-code", "x-error-message", "content-disposition", "last-modified", "location",
    "retry-after", "ratelimit", "ratelimit-policy",
)  # fmt: skip
_SENT = ("range", "accept-encoding", "accept", "if-range")
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"


class PassThrough:
    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInputError(f"--upstream is {upstream!r:.120}, expected a URL such as https://huggingface.co")
        self._upstream = upstream.rstrip("/")
        self._host = parts.netloc
        self._client: httpx2.AsyncClient | None = None

    def knows(self, method: str, parts: list[str]) -> bool:
        """Whether a path without a namespace (``gpt2``) is one of reading models and their files."""
        path = "/" + "/".join(parts)
        if method == "POST":
            return bool(_PATHS_INFO.fullmatch(path))
        return method in ("GET", "HEAD") and bool(_API.match(path) or _FILE.match(path))

    async def answer(self, request: Request, body: bytes = b"") -> Response:
        """``body`` is what a question for paths consists of. Raises UnavailableError."""
        raw = request.scope.get("raw_path", request.url.path.encode()).decode("ascii", "replace")
        query = request.scope["query_string"].decode("ascii", "replace")
        url = f"{self._upstream}{raw}{'?' + query if query else ''}"
        headers = {name: value for name, value in request.headers.items() if name in _SENT}
        headers["accept-encoding"] = "identity"
        if body:
            is_json = request.headers.get("content-type", "").startswith(_JSON)
            headers["content-type"] = _JSON if is_json else _FORM
        try:
            return await self._asked(request, url, headers, body)
        except httpx2.HTTPError as error:
            raise UnavailableError(f"{self._host} does not answer: {type(error).__name__}", hint="try again") from None

    async def _asked(self, request: Request, url: str, headers: dict[str, str], body: bytes) -> Response:
        """Redirects within upstream are followed here; one that leads elsewhere is given on with what upstream said of the file."""
        client = self._opened()
        for _ in range(_MAX_REDIRECTS):
            asking = client.build_request(request.method, url, headers=headers, content=body or None)
            response = await client.send(asking, stream=True)
            target = response.headers.get("location")
            if response.status_code not in (301, 302, 303, 307, 308) or target is None:
                break
            following = urljoin(url, target)
            if urlsplit(following).netloc != self._host:
                break
            await response.aclose()
            url = following
        else:
            raise UnavailableError(f"{self._host} redirects in a circle")
        found = {name: response.headers[name] for name in _GIVEN_ON if name in response.headers}
        found["Cache-Control"] = "no-store"
        if "location" in found:
            found["location"] = urljoin(url, found["location"])
        if link := _link(response.headers.get("link", ""), self._upstream, public_url(request)):
            found["Link"] = link
        if (
            request.method != "HEAD"
            and response.headers.get("content-type", "").startswith(_JSON)
            and request.url.path.startswith("/api/")  # whatever path upstream has before it
        ):
            data = await _whole(response)
            found.pop("content-length", None)
            return Response(_without_xet(data), response.status_code, found)
        if request.method == "HEAD":
            await response.aclose()
            return Response(None, response.status_code, found)
        return StreamingResponse(_body(response), response.status_code, found)

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=_PATIENCE, follow_redirects=False, trust_env=True)
        return self._client


async def _body(response: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    finally:
        await response.aclose()


async def _whole(response: httpx2.Response) -> bytes:
    data = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > _MAX_JSON:
                raise UnavailableError("upstream's answer is too large")
    finally:
        await response.aclose()
    return bytes(data)


def _without_xet(data: bytes) -> bytes:
    try:
        return json.dumps(_cleaned(json.loads(data))).encode()
    except (ValueError, RecursionError):
        raise UnavailableError("upstream's answer is no JSON") from None


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(each) for key, each in value.items() if not _XET.match(key)}
    return [_cleaned(each) for each in value] if isinstance(value, list) else value


def _link(text: str, upstream: str, address: str) -> str:
    """The ``next`` page alone, at our address."""
    for part in text.split(","):
        if 'rel="next"' in part and f"<{upstream}/" in part:
            return part.strip().replace(f"<{upstream}/", f"<{address}/")
    return ""
