"""Is the process there, and can it answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from registry.hub.protocol import SERVICE

if TYPE_CHECKING:
    from registry.catalog.sql import SqlCatalog

router = APIRouter(tags=["health"])


@router.get("/", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def root() -> dict[str, str]:
    """For whoever comes to look: there is no page here, but a description."""
    return {"name": "adapter-registry", "openapi": "/v1/openapi.json"}


@router.get("/healthz", summary="The process is there")
async def healthz() -> dict[str, str]:
    """``service`` tells clients that speak the Hub's protocol which server this is."""
    return {"status": "ok", "service": SERVICE}


@router.get("/readyz", summary="The catalog can be read, and has the schema of this server")
def readyz(request: Request) -> JSONResponse:
    """Raises UnavailableError (503) through the catalog."""
    catalog: SqlCatalog = request.app.state.registry.catalog
    catalog.require_current()
    catalog.audit(limit=1)
    return JSONResponse({"status": "ready"}, headers={"Cache-Control": "no-store"})
