"""What happened: the audit for administrators, and events for whoever follows along.

The outbox of the events is the audit itself, written in the transaction of each change, so that none is lost and none is early.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from registry.api.callers import Caller, Requires
from registry.api.connections import STATE, Connections
from registry.api.texts import Sequence
from registry.api.told import may_see, told
from registry.domain.access import Action
from registry.domain.moments import utc_now
from registry.domain.version import AuditEntry
from registry.remote import values

router = APIRouter(prefix="/v1", tags=["events"])

_PAGE = 500
#: Seconds between looks at the catalog's stamp, and between signs of life to whoever listens.
_LOOK, _HEARTBEAT = 0.5, 15.0


@router.get("/audit", summary="Every change, newest first")
def audit(
    caller: Annotated[Caller, Depends(Requires(Action.ADMIN))],
    adapter: Annotated[str | None, Query(max_length=200, description="Only what happened to this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    return {"items": [values.entry_document(entry) for entry in caller.registry.log(adapter, limit=limit)]}


@router.get("/events", summary="Changes since a point, as a page or as a stream")
def events(
    request: Request,
    caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))],
    after: Annotated[Sequence, Query(description="The sequence number of the last event that was seen.")] = 0,
    last_event_id: Annotated[Sequence | None, Header()] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
) -> Response:
    """Oldest first, and only of adapters that the caller may read. With ``Accept: text/event-stream`` the answer goes on
    (Server-Sent Events); a client that comes back says where it was with ``Last-Event-ID``."""
    start = last_event_id if last_event_id is not None else after
    if "text/event-stream" in request.headers.get("accept", ""):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(request, caller, start), media_type="text/event-stream", headers=headers)
    page = caller.registry.catalog.events(start, limit=limit)
    following = page[-1].sequence if page else start
    shown = [_document(caller, entry) for entry in page if may_see(caller, entry)]
    return JSONResponse({"items": shown, "after": following}, headers={"Cache-Control": "no-store"})


async def _stream(request: Request, caller: Caller, after: int) -> AsyncIterator[bytes]:
    generation, quiet = b"", 0.0
    connections: Connections | None = getattr(request.state, STATE, None)
    while not (await request.is_disconnected() or (connections is not None and connections.ending.is_set())):
        now = caller.registry.catalog.generation()
        if now != generation:
            page = await to_thread.run_sync(_read_on, request, caller, after)
            if page is None:
                return
            generation = now if len(page) < _PAGE else b""
            for sequence, block in page:
                after = sequence
                if block is not None:
                    quiet = 0.0
                    yield block
            continue
        await asyncio.sleep(_LOOK)
        quiet += _LOOK
        if quiet >= _HEARTBEAT:
            quiet = 0.0
            yield b": still here\n\n"


def _read_on(request: Request, caller: Caller, after: int) -> list[tuple[int, bytes | None]] | None:
    """Sequence numbers, each with its block of the stream if the caller may see it. None if the token has ended meanwhile, or the
    server has got its first one and is open to nobody any more."""
    catalog = caller.registry.catalog
    if caller.open and not request.app.state.gatekeeper.is_open:
        return None
    if caller.token is not None:
        token = catalog.find_token(caller.token.id)
        if token is None or not token.is_live(utc_now()):
            return None
    return [(entry.sequence, _block(caller, entry)) for entry in catalog.events(after, limit=_PAGE)]


def _block(caller: Caller, entry: AuditEntry) -> bytes | None:
    if not may_see(caller, entry):
        return None
    return f"id: {entry.sequence}\nevent: {entry.action}\ndata: {json.dumps(_document(caller, entry))}\n\n".encode()


def _document(caller: Caller, entry: AuditEntry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "adapter": entry.adapter,
        "facts": told(caller, entry).body,
    }
