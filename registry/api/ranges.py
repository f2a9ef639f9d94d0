"""A blob as an answer: whole, one range of it, or only what it would be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from registry.api.conditions import matches, require_match
from registry.api.sending import sent
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from starlette.requests import Request

    from registry.blobs.filesystem import FilesystemBlobs
    from registry.domain.digest import Digest

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)
_MEDIA_TYPE = "application/octet-stream"


class UnsatisfiableRangeError(InvalidInputError):
    http_status = 416
    default_code = "range-not-satisfiable"

    def __init__(self, text: str, size: int) -> None:
        super().__init__(f"{text!r:.60} is no range of {size:,} bytes, or more than one")
        self.size = size


def partial_answer(request: Request, digest: Digest, blobs: FilesystemBlobs, headers: Mapping[str, str]) -> Response:
    """``headers`` must have an ETag. Raises MissingBlobError before anything is sent, UnsatisfiableRangeError,
    PreconditionFailedError."""
    size = blobs.size(digest)
    require_match(request.headers.get("if-match"), headers["ETag"])
    answered = {**headers, "Accept-Ranges": "bytes"}
    unless = request.headers.get("if-none-match")
    if unless is not None and matches(unless, headers["ETag"]):
        return Response(status_code=304, headers=answered)
    start, stop, status, of_range = part_asked_for(request, headers["ETag"], size)
    answered |= of_range
    if request.method == "HEAD":
        return Response(None, status, answered, media_type=_MEDIA_TYPE)
    return StreamingResponse(sent(digest, start, stop, blobs), status, answered, media_type=_MEDIA_TYPE)


def part_asked_for(request: Request, etag: str, size: int) -> tuple[int, int, int, dict[str, str]]:
    """First byte and the one behind the last, status, and headers. Raises UnsatisfiableRangeError."""
    wanted, condition = request.headers.get("range"), request.headers.get("if-range")
    if request.method != "GET" or wanted is None or not _is_of_bytes(wanted) or condition not in (None, etag):
        return 0, size, 200, {"Content-Length": str(size)}
    start, stop = span(wanted, size)
    return start, stop, 206, {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "Content-Length": str(stop - start)}


def _is_of_bytes(text: str) -> bool:
    """What is of another unit is to be ignored (RFC 9110, 14.2)."""
    return text.partition("=")[0].strip().lower() == "bytes"


def span(text: str, size: int) -> tuple[int, int]:
    """First byte and the one behind the last. Raises UnsatisfiableRangeError, for more than one range too."""
    match = _RANGE.fullmatch(text.replace(" ", ""))
    first, last = (match[1], match[2]) if match else ("", "")
    if first:
        start, stop = _bounded(first, size), min(_bounded(last, size) + 1, size) if last else size
    elif last:
        start, stop = max(0, size - _bounded(last, size)), size
    else:
        start, stop = size, size
    if start >= stop:
        raise UnsatisfiableRangeError(text, size)
    return start, stop


def _bounded(digits: str, most: int) -> int:
    """Of any number of digits."""
    return most if len(digits.lstrip("0")) > len(str(most)) else min(int(digits), most)
