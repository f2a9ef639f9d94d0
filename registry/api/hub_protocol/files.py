"""``/ns/name/resolve/REVISION/PATH``: the bytes of files, and what a client decides by before it asks for them.

Every revision that is not a whole commit id is answered by a redirect to the commit it means, on HEAD and GET alike: a client asks
twice, and if an alias moved in between it would keep the new bytes under the old name for ever, where nobody looks again. The
redirect is relative and has no query, which old clients drop.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from anyio import to_thread
from starlette.responses import Response, StreamingResponse

from registry.api.hub_protocol.errors import RevisionMissingError, UnsatisfiableRangeError
from registry.api.hub_protocol.paths import quoted

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.revisions import Revision

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def resolve(asked: Asked) -> Response:
    repository, wanted, path = asked.repository, asked.params["revision"], asked.params["path"]
    revision = repository.revision(wanted)
    if not _COMMIT.fullmatch(wanted):
        return _pinned(repository.shown, revision, path)
    if revision.commit != wanted:
        raise RevisionMissingError(repository.shown, wanted)
    entry = repository.entry(revision, path)
    trees = asked.services.trees
    size = entry.size if entry.data is not None else asked.caller.registry.blobs.size(entry.digest)
    name = path.rpartition("/")[2]
    headers = {
        "ETag": f'"{trees.etag(entry)}"',
        "X-Repo-Commit": revision.commit,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{_plain(name)}\";",
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if entry.is_large:
        headers |= {"X-Linked-ETag": f'"{entry.digest.hex}"', "X-Linked-Size": str(size)}
    start, stop = 0, size
    status = 200
    if_range = asked.request.headers.get("if-range")
    wanted_range = asked.request.headers.get("range")
    if wanted_range is not None and (if_range is None or if_range == headers["ETag"]):
        start, stop = _span(wanted_range, size)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if asked.request.method == "HEAD":
        return Response(None, status, headers, media_type="application/octet-stream")
    return StreamingResponse(
        _stream(_clipped(trees.chunks(entry, start=start), stop - start)),
        status,
        headers,
        media_type="application/octet-stream",
    )


def _pinned(shown: str, revision: Revision, path: str) -> Response:
    location = f"/{quoted(shown)}/resolve/{revision.commit}/{quoted(path)}"
    headers = {"Location": location, "X-Repo-Commit": revision.commit, "Cache-Control": "no-store"}
    return Response(None, 307, headers)


def _span(text: str, size: int) -> tuple[int, int]:
    """First byte and the one behind the last. Raises UnsatisfiableRangeError, for more than one range too."""
    match = _RANGE.fullmatch(text.replace(" ", ""))
    first, last = (match[1], match[2]) if match else ("", "")
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = size, size
    if start >= stop:
        raise UnsatisfiableRangeError(text, size)
    return start, stop


def _clipped(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        if length <= 0:
            return
        yield chunk[:length] if len(chunk) > length else chunk
        length -= len(chunk)


async def _stream(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await to_thread.run_sync(next, chunks, b""):
        yield chunk


def _plain(name: str) -> str:
    """For the form of a file name that cannot be quoted."""
    return re.sub(r"[^A-Za-z0-9._ -]", "_", name)
