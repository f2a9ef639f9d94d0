"""``/ns/name/resolve/REVISION/PATH``: the bytes of files, and what a client decides by before it asks for them.

Every revision that is not a whole commit id is answered by a redirect to the commit it means, on HEAD and GET alike: a client asks
twice, and if an alias moved in between it would keep the new bytes under the old name for ever, where nobody looks again. The
redirect is relative and has no query, which old clients drop. The oldest clients drop their token as well, see below.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from registry.api.callers import UnauthenticatedError
from registry.api.hub_protocol.errors import RevisionMissingError
from registry.api.hub_protocol.paths import quoted
from registry.api.hub_protocol.repositories import find_repository
from registry.api.ranges import part_asked_for
from registry.api.sending import sent

if TYPE_CHECKING:
    from starlette.requests import Request

    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.revisions import Revision

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_MEDIA_TYPE = "application/octet-stream"
_PURPOSE, _LIFETIME = "file", 600.0
_CLIENT, _LAST_LOSING = re.compile(r"\bhf_hub/0\.([0-9]{1,3})\b", re.ASCII), 20


def resolve(asked: Asked) -> Response:
    repository, text, path = asked.repository, asked.params["revision"], asked.params["path"]
    revision = repository.revision(text)
    if not _COMMIT.fullmatch(text):
        return _pinned(asked, revision, path)
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
    start, stop, status, of_range = part_asked_for(asked.request, headers["ETag"], size)
    headers |= of_range
    if asked.request.method == "HEAD":
        return Response(None, status, headers, media_type=_MEDIA_TYPE)
    if entry.data is not None:
        return Response(entry.data[start:stop], status, headers, media_type=_MEDIA_TYPE)
    body = sent(entry.digest, start, stop, asked.caller.registry.blobs)
    return StreamingResponse(body, status, headers, media_type=_MEDIA_TYPE)


def signed(asked: Asked) -> Response:
    """``/_signed/SIGNATURE/ns/name/resolve/COMMIT/PATH``: the same for whoever was redirected here and lost their token on the way.
    Raises UnauthenticatedError."""
    facts = asked.services.signer.read(_PURPOSE, asked.params["signature"])
    shown = f"{asked.params['ns']}/{asked.params['name']}"
    if facts["about"] != [shown, asked.params["revision"], asked.params["path"]]:
        raise UnauthenticatedError
    caller = asked.services.gatekeeper.holder_of(str(facts["token"]))
    repository = find_repository(caller, shown, asked.services.histories)
    return resolve(replace(asked, maker=caller, about=repository))


def _pinned(asked: Asked, revision: Revision, path: str) -> Response:
    shown = asked.repository.shown
    location = f"/{quoted(shown)}/resolve/{revision.commit}/{quoted(path)}"
    token = asked.caller.token
    if token is not None and _loses_its_token(asked.request):
        facts = {"about": [shown, revision.commit, path], "token": token.id}
        location = f"/_signed/{asked.services.signer.signed(_PURPOSE, facts, seconds=_LIFETIME)}{location}"
    headers = {"Location": location, "X-Repo-Commit": revision.commit, "Cache-Control": "no-store"}
    return Response(None, 307, headers)


def _loses_its_token(request: Request) -> bool:
    """huggingface_hub up to 0.20 sends none to where it is redirected, and no query: the path itself has to say who asks."""
    client = _CLIENT.search(request.headers.get("user-agent", ""))
    return client is not None and int(client[1]) <= _LAST_LOSING


def _plain(name: str) -> str:
    """For the form of a file name that cannot be quoted."""
    return re.sub(r"[^A-Za-z0-9._ -]", "_", name)
