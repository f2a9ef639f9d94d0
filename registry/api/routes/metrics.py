"""Counters for Prometheus. Each worker has its own; a scrape meets one of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from registry.api.callers import Caller, Requires
from registry.domain.access import Action

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Counters, in Prometheus' text format")
def metrics(request: Request, caller: Annotated[Caller, Depends(Requires(Action.ADMIN))]) -> Response:
    newest = caller.registry.catalog.audit(limit=1)
    request.app.state.counters.look_up(request.app.state.answers.hits, newest[0].sequence if newest else 0)
    return Response(generate_latest(request.app.state.counters.registry), media_type=CONTENT_TYPE_LATEST)
