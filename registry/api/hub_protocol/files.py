"""``/ns/name/resolve/REVISION/PATH``: the bytes of files, and what a client decides by before it asks for them.

Every revision that is not a whole commit id is answered by a redirect to the commit it means, on HEAD and GET alike: a client asks
twice, and if an alias moved in between it would keep the new bytes under the old name for ever, where nobody looks again. The
redirect is relative and has no query, which old clients drop.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from registry.api.hub_protocol.errors import RevisionMissingError
from registry.api.hub_protocol.paths import quoted
from registry.api.ranges import span
from registry.api.sending import sent

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.revisions import Revision

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_MEDIA_TYPE = "application/octet-stream"


def resolve(asked: Asked) -> Response:
    repository, text, path = asked.repository, asked.params["revision"], asked.params["path"]
    revision = repository.revision(text)
    if not _COMMIT.fullmatch(text):
        return _pinned(repository.shown, revision, path)
    if revision.commit != text:
        raise RevisionMissingError(repository.shown, text)
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
    start, stop, status = 0, size, 200
    wanted, condition = asked.request.headers.get("range"), asked.request.headers.get("if-range")
    if wanted is not None and condition in (None, headers["ETag"]):
        start, stop = span(wanted, size)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if asked.request.method == "HEAD":
        return Response(None, status, headers, media_type=_MEDIA_TYPE)
    if entry.data is not None:
        return Response(entry.data[start:stop], status, headers, media_type=_MEDIA_TYPE)
    body = sent(entry.digest, start, stop, asked.caller.registry.blobs)
    return StreamingResponse(body, status, headers, media_type=_MEDIA_TYPE)


def _pinned(shown: str, revision: Revision, path: str) -> Response:
    location = f"/{quoted(shown)}/resolve/{revision.commit}/{quoted(path)}"
    headers = {"Location": location, "X-Repo-Commit": revision.commit, "Cache-Control": "no-store"}
    return Response(None, 307, headers)


def _plain(name: str) -> str:
    """For the form of a file name that cannot be quoted."""
    return re.sub(r"[^A-Za-z0-9._ -]", "_", name)
