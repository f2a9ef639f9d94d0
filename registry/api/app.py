"""The application: one catalog and one blob store, the routes over them, and what stands before the routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI

from registry.api import description, problems
from registry.api.answers import EncodedAnswers
from registry.api.callers import Gatekeeper
from registry.api.conditions import ConditionsTogether
from registry.api.descriptions import Descriptions
from registry.api.documents import Documents
from registry.api.freshness import Freshness
from registry.api.guards import Guarded
from registry.api.heads import Heads
from registry.api.hub_protocol.dispatch import HubProtocol
from registry.api.once import Once
from registry.api.parameters import require_known_parameters
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
    promote,
    resolve,
    store,
    tokens,
    transactions,
    versions,
)
from registry.api.settings import Settings
from registry.api.tidying import Tidied
from registry.api.uploads import Uploads
from registry.api.watching import Counters, Watched, log_to_stderr
from registry.connect import embedded

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: Paths below which a successful answer to GET depends on the request and the catalog alone.
_KEPT = ("/v1/resolve/", "/v1/adapters", "/v1/best", "/v1/bases", "/api/models/")

_RESOURCES = (
    adapters,
    aliases,
    bases,
    blobs,
    catalog,
    events,
    finding,
    health,
    metrics,
    promote,
    resolve,
    store,
    tokens,
    transactions,
    versions,
)


def create_app(settings: Settings) -> ASGIApp:
    """What a worker serves. The store must be there: ``adapters serve`` sees to that."""
    registry = replace(embedded(settings.location), trusts_paths=False)
    # No page that shows the description: it would load scripts from elsewhere into the registry's own origin.
    app = FastAPI(
        title="adapter-registry",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        dependencies=[Depends(require_known_parameters)],
        redirect_slashes=False,  # it would be to an address that is made of the Host header
    )
    app.state.registry = registry
    app.state.settings = settings
    app.state.gatekeeper = Gatekeeper(registry, settings)
    place, lifetime = settings.location / "server", settings.upload_lifetime
    app.state.descriptions = Descriptions()
    app.state.possessions = Possessions(place / "possessions", registry.blobs, lifetime=lifetime)
    app.state.uploads = Uploads(
        registry.blobs.uploads,
        lifetime=lifetime,
        most=settings.unfinished_uploads,
        most_bytes=settings.unfinished_bytes,
    )
    app.state.once = Once(place / "once", lifetime=lifetime)
    routers = [resource.router for resource in _RESOURCES]
    problems.install(app, [route for router in routers for route in router.routes])
    for router in routers:
        app.include_router(router)
    description.describe(app, routers)
    hub = app.router.default = HubProtocol(registry, settings, app.state.gatekeeper)  # whatever no route knows
    app.state.hub = hub.services
    counters = app.state.counters = Counters()
    freshness = Freshness(registry.catalog)
    app.state.documents = Documents(freshness)
    keepers = (app.state.possessions, app.state.uploads, app.state.once, *hub.services.keepers)
    watched = Watched(Guarded(Tidied(app, *keepers), settings, app.state.gatekeeper), counters)
    answers = EncodedAnswers(watched, prefixes=_KEPT, freshness=freshness, counters=counters)
    return ConditionsTogether(Heads(answers))


def from_environment() -> ASGIApp:
    """For the workers of a server, which may be other processes."""
    settings = Settings.from_environment()
    if settings.log_requests:
        log_to_stderr()
    return create_app(settings)
