"""Counters for Prometheus, of all workers together."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from registry.api.callers import Caller, Requires
from registry.api.watching import Counters
from registry.domain.access import Action

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Counters, in Prometheus' text format")
def metrics(request: Request, caller: Annotated[Caller, Depends(Requires(Action.ADMIN))]) -> Response:
    newest = caller.registry.catalog.audit(limit=1)
    counters: Counters = request.app.state.counters
    return Response(counters.shown(newest[0].sequence if newest else 0), media_type=CONTENT_TYPE_LATEST)
