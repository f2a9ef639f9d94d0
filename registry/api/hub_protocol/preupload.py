"""What a client asks before it uploads: how each file is to travel, and whether it may. What is refused is refused here, before
bytes were sent; at the commit itself newer clients would cut their batch in pieces and try those."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.errors import TooLargeError, header_text
from registry.api.hub_protocol.policy import Welcome, makes_version, require_adapter_beside, require_writable, welcome
from registry.api.hub_protocol.trees import Entry, is_large
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked

_MOST = 1000
_SAMPLE = 512


def preupload(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    asked.services.tidy()
    files = asked.json().get("files", [])
    if not isinstance(files, list) or len(files) > _MOST or not all(isinstance(file, dict) for file in files):
        raise InvalidInputError(f"files is expected as a list of at most {_MOST:,} objects", code="invalid-body")
    history, announcements = asked.repository.history, asked.services.announcements
    head, actor, key = history.main, asked.caller.actor, asked.repository.name.key
    answers, left_out = [], []
    coming: list[dict[str, Any]] = []
    undecided: list[dict[str, Any]] = []
    for file in files:
        path, size = text_of(file, "path"), _size(file, asked.settings.max_blob)
        kept = welcome(path) is Welcome.KEPT
        answer: dict[str, Any] = {
            "path": path,
            "uploadMode": "lfs" if is_large(path, size) else "regular",
            "shouldIgnore": not kept,
        }
        there = head.tree.get(path)
        if there is not None:
            answer["oid"] = asked.services.trees.etag(there)
        if not kept:
            left_out.append(path)
        elif makes_version(path):
            (coming if there is None or _differs(file, size, there, asked) else undecided).append(answer)
        answers.append(answer)
    if coming:  # of an adapter that changes everything has to come: else what is new would be mixed with what only looks the same
        for answer in undecided:
            answer.pop("oid", None)
        coming += undecided
    paths = {answer["path"] for answer in answers}
    expected = {*paths, *head.tree, *announcements.all_of(actor, key)}
    require_adapter_beside(paths - set(head.tree), expected, asked.repository.shown)
    announcements.add(actor, key, [answer["path"] for answer in coming])
    headers = {}
    if left_out:
        text = f"left-out; {', '.join(left_out[:5])}: pickles can run code when they are opened, and are not stored"
        headers["X-HF-Warning"] = header_text(text)
    return JSONResponse({"files": answers, "commitOid": history.served(head).commit}, headers=headers)


def _size(file: Mapping[str, Any], most: int) -> int:
    size = file.get("size")
    if not isinstance(size, int) or size < 0:
        raise InvalidInputError(f"size is {size!r:.40}, expected how many bytes the file has", code="invalid-body")
    if size > most:
        raise TooLargeError(f"{file.get('path')!r:.200} with {size:,} bytes", most)
    return size


def _differs(file: Mapping[str, Any], size: int, there: Entry, asked: Asked) -> bool:
    """Whether the file surely is another than the one that is here; if not, it may never be sent."""
    if size != there.size:
        return True
    try:
        sample = base64.b64decode(file.get("sample") or "", validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    start = next(asked.services.trees.chunks(there), b"")[:_SAMPLE]
    return bool(sample) and sample[:_SAMPLE] != start
