"""The application: one catalog and one blob store, the routes over them, and what stands before the routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import FastAPI

from registry.api import problems
from registry.api.answers import EncodedAnswers
from registry.api.callers import Gatekeeper
from registry.api.freshness import Freshness
from registry.api.hub_protocol.dispatch import HubProtocol
from registry.api.once import Once
from registry.api.possessions import Possessions
from registry.api.routes import (
    adapters,
    aliases,
    bases,
    blobs,
    catalog,
    events,
    finding,
    health,
    metrics,
    resolve,
    store,
    tokens,
    versions,
)
from registry.api.settings import Settings
from registry.api.uploads import Uploads
from registry.api.watching import Counters, Watched
from registry.connect import connect

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: Paths below which a successful answer to GET depends on the request and the catalog alone.
_KEPT = ("/v1/resolve/", "/v1/adapters", "/v1/best", "/v1/bases", "/api/models/")


def create_app(settings: Settings) -> ASGIApp:
    """What a worker serves. The store must be there: ``adapters serve`` sees to that."""
    registry = replace(connect(settings.location), here=False)
    app = FastAPI(
        title="adapter-registry", version="1", docs_url="/v1/docs", redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.registry = registry
    app.state.settings = settings
    app.state.gatekeeper = Gatekeeper(registry, settings)
    place, lifetime = settings.location / "server", settings.upload_lifetime
    app.state.possessions = Possessions(place / "possessions", lifetime=lifetime)
    app.state.uploads = Uploads(place / "uploads", lifetime=lifetime)
    app.state.once = Once(place / "once", lifetime=lifetime)
    problems.install(app)
    for resource in (
        adapters,
        aliases,
        bases,
        blobs,
        catalog,
        events,
        finding,
        health,
        metrics,
        resolve,
        store,
        tokens,
        versions,
    ):
        app.include_router(resource.router)
    app.router.default = HubProtocol(registry, settings, app.state.gatekeeper)  # whatever no route knows
    counters = app.state.counters = Counters()
    return EncodedAnswers(Watched(app, counters), prefixes=_KEPT, freshness=Freshness(registry.catalog))


def from_environment() -> ASGIApp:
    """For the workers of a server, which are other processes."""
    return create_app(Settings.from_environment())
