"""The upload half of the Xet protocol.

Clients since 1.20 send large files this way and no other. What they send is decoded at once and becomes a blob like any other:
nothing is served by Xet, and nothing that was sent before is taken as sent. The client remembers what it sent to an address, so
every token comes with an address of its own.

1. ``xet-write-token`` says where and with which token. Whoever has it may push to the one adapter, for as long
   as the caller's own token holds.
2. Xorbs come first, then the shard that makes files of them. The SHA-256 it states is compared, then the blob is stored.
3. The commit names the blobs by their SHA-256, as one after Git-LFS does.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from registry.api.callers import bearer
from registry.api.hub_protocol.errors import TooLargeError
from registry.api.hub_protocol.policy import require_writable
from registry.api.hub_protocol.services import XET_LIFETIME
from registry.api.hub_protocol.uploads import take
from registry.errors import DeniedError
from registry.formats.xet_shard import ShardFile, read_shard
from registry.formats.xet_xorb import read_chunks

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.xet_staging import Session

PURPOSE = "xet"
_MAX_BODY = 80 << 20
_MAX_SHARD = 64 << 20
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def write_token(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    facts = {"token": asked.caller.token_id, "adapter": asked.repository.name.key}
    token = asked.services.signer.signed(PURPOSE, facts, seconds=XET_LIFETIME)
    address = f"{asked.address}/xet/{secrets.token_hex(16)}"
    until = int(time.time() + XET_LIFETIME)
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(until),
        "Cache-Control": "no-store",
    }
    return JSONResponse({"casUrl": address, "accessToken": token, "exp": until}, headers=headers)


def xorb(asked: Asked) -> Response:
    _, session = _session(asked)
    if session.size() > asked.settings.max_blob:
        raise TooLargeError("what was uploaded in this session", asked.settings.max_blob)
    body = _Body(asked.chunks(limit=_MAX_BODY))
    new = session.add(asked.params["hash"], read_chunks(body.read))
    body.drain()
    return JSONResponse({"was_inserted": new})


def shard(asked: Asked) -> Response:
    """Every file of the shard, or the first error. One that it names several times is the same bytes each time."""
    actor, session = _session(asked)
    files = {file.digest: file for file in read_shard(asked.body(limit=_MAX_SHARD))}.values()
    for file in files:
        if file.size > asked.settings.max_blob:
            raise TooLargeError(f"the file {file.digest}", asked.settings.max_blob)
    for file in files:
        take(file.digest, file.size, _bytes_of(file, session), asked.services.registry.blobs)
        asked.services.possessions.note(actor, file.digest)
    return JSONResponse({"result": 1})


def _session(asked: Asked) -> tuple[str, Session]:
    """The actor, and what they sent to this address. Raises UnauthenticatedError, DeniedError."""
    facts = asked.services.signer.read(PURPOSE, bearer(asked.request) or "")
    nonce = asked.params["nonce"]
    if not _NONCE.fullmatch(nonce):
        raise DeniedError("this is no address for uploads", code="forbidden")
    actor = asked.services.gatekeeper.holder_of(facts.get("token")).actor
    return actor, asked.services.staging.session(actor, facts["adapter"], nonce)


def _bytes_of(file: ShardFile, session: Session) -> Iterator[bytes]:
    for segment in file.segments:
        yield from session.read(segment)


class _Body:
    """A body that comes in pieces, read in pieces of another size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Fewer bytes only at the end."""
        while len(self._held) - self._at < count:
            more = next(self._chunks, None)
            if more is None:
                break
            self._held, self._at = self._held[self._at :] + more, 0
        found = self._held[self._at : self._at + count]
        self._at += len(found)
        return found

    def drain(self) -> None:
        for _ in self._chunks:
            pass
