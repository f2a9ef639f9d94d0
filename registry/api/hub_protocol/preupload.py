"""What a client asks before it uploads: how each file is to travel, and whether it may. What is refused is refused here, before
bytes were sent; at the commit itself newer clients would cut their batch in pieces and try those.

A client that is told what a file here is leaves it out of its commit if its own is the same. That is not said of files that have to
come, see :mod:`~registry.api.hub_protocol.announcements`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.announcements import LONGEST
from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.errors import TooLargeError, header_text
from registry.api.hub_protocol.ignoring import GITIGNORE, MAX_BYTES, ignored_by
from registry.api.hub_protocol.policy import (
    Welcome,
    is_described,
    makes_version,
    require_adapter_beside,
    require_writable,
    welcome,
)
from registry.api.hub_protocol.trees import is_large
from registry.domain.paths import require_apart
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.revisions import Revision

_MOST = 1000


def preupload(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    body = asked.json()
    files = body.get("files", [])
    if not isinstance(files, list) or len(files) > _MOST or not all(isinstance(file, dict) for file in files):
        raise InvalidInputError(f"files is expected as a list of at most {_MOST:,} objects", code="invalid-body")
    history, announcements = asked.repository.history, asked.services.announcements
    head, actor, key = history.main, asked.caller.actor, asked.repository.name.key
    ignored = ignored_by(_gitignore(body, head, asked))
    answers = [_answer(file, ignored, asked) for file in files]
    kept = [answer["path"] for answer in answers if not answer["shouldIgnore"]]
    full = len(files) >= LONGEST
    needed = {*(kept[-1:] if full else []), *(path for path in kept if makes_version(path))}
    for answer in answers:
        there = head.tree.get(answer["path"])
        if there is not None and not answer["shouldIgnore"] and answer["path"] not in {*kept[:1], *needed}:
            answer["oid"] = asked.services.trees.etag(there)
    named = {answer["path"] for answer in answers if not ignored(answer["path"])}
    require_apart([path for path in kept if is_described(path)])
    expected = {*named, *head.tree, *announcements.of(actor, key).left}
    require_adapter_beside(named - set(head.tree), expected, asked.repository.shown)
    if kept:
        announcements.add(actor, key, kept, needed=needed, full=full)
    document = {"files": answers, "commitOid": history.served(head).commit}
    left_out = [answer["path"] for answer in answers if answer["shouldIgnore"]]
    return JSONResponse(document, headers=_warning(left_out, ignored))


def _warning(left_out: Sequence[str], ignored: Callable[[str], bool]) -> dict[str, str] | None:
    """What clients show of the files that are left out."""
    unwanted = [path for path in left_out if ignored(path)]
    pickles = [path for path in left_out if not ignored(path)]
    reasons = []
    if pickles:
        reasons.append(f"{', '.join(pickles[:5])}: pickles can run code when they are opened, and are not stored")
    if unwanted:
        reasons.append(f"{', '.join(unwanted[:5])}: {GITIGNORE} leaves them out")
    return {"X-HF-Warning": header_text(f"left-out; {'; '.join(reasons)}")} if reasons else None


def _answer(file: Mapping[str, Any], ignored: Callable[[str], bool], asked: Asked) -> dict[str, Any]:
    path = text_of(file, "path")
    if ignored(path):
        return {"path": path, "uploadMode": "regular", "shouldIgnore": True}
    size = _size(file, asked.settings.max_blob)
    mode = "lfs" if is_large(path, size) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": welcome(path) is not Welcome.KEPT}


def _gitignore(body: Mapping[str, Any], head: Revision, asked: Asked) -> str:
    """What the client brings, else what is on main. Raises IgnoreRulesError."""
    if body.get("gitIgnore") is not None:
        return text_of(body, "gitIgnore")
    there = head.tree.get(GITIGNORE)
    if there is None:
        return ""
    start = bytearray()
    for chunk in asked.services.trees.chunks(there):
        start += chunk
        if len(start) > MAX_BYTES:
            break
    return start.decode("utf-8", "replace")


def _size(file: Mapping[str, Any], most: int) -> int:
    size = file.get("size")
    if not isinstance(size, int) or size < 0:
        raise InvalidInputError(f"size is {size!r:.40}, expected how many bytes the file has", code="invalid-body")
    if size > most:
        raise TooLargeError(f"{file.get('path')!r:.200} with {size:,} bytes", most)
    return size
