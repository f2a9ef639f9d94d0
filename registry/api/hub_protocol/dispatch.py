"""From a request to the handler of its route, and from an error to what the client makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from registry.api import problems
from registry.api.callers import TooManyRequestsError
from registry.api.hub_protocol import table
from registry.api.hub_protocol.asked import MAX_ANYBODY, MAX_JSON, Asked, GoneError
from registry.api.hub_protocol.endings import finish_begun
from registry.api.hub_protocol.errors import ForeignRepositoryError, OtherSiteError, refusal
from registry.api.hub_protocol.paths import segments
from registry.api.hub_protocol.reading import MAX_PATHS_INFO
from registry.api.hub_protocol.repositories import find_repository
from registry.api.hub_protocol.services import Services
from registry.api.limits import Limits
from registry.domain.access import Action
from registry.errors import RegistryError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from registry.api.callers import Caller, Gatekeeper
    from registry.api.hub_protocol.pass_through import PassThrough
    from registry.api.hub_protocol.table import Route
    from registry.api.settings import Settings
    from registry.connect import EmbeddedRegistry

#: Threads for bodies that may be long in coming, so that they take none from look-ups: for more than come from one address.
_UPLOADS = 512
_UNKNOWN = "this server does not speak this part of the protocol"
_WITHOUT_BODY = ("GET", "HEAD")
#: First segments of this registry's own API.
_OWN = frozenset(["v1", "healthz", "readyz", "metrics"])


class HubProtocol:
    """An ASGI application for the root of the origin."""

    def __init__(self, registry: EmbeddedRegistry, settings: Settings, gatekeeper: Gatekeeper) -> None:
        self.services = Services(registry, settings, gatekeeper)
        finish_begun(self.services)
        self._gatekeeper = gatekeeper
        self._commits = Limits(2 * settings.pushes_per_minute)
        self._uploads: CapacityLimiter | None = None
        self._upstream: PassThrough | None = None
        if settings.upstream:
            from registry.api.hub_protocol.pass_through import PassThrough

            self._upstream = PassThrough(settings.upstream)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        parts = segments(scope)
        found = table.find(request.method, parts)
        if parts[0] in _OWN:
            response: Response | None = problems.problem(404, "not-found", "there is no such route")
        elif found is None:
            response = await self._unknown(request, receive, parts)
        else:
            response = await self._answered(request, receive, *found)
        if response is not None:
            await response(scope, receive, send)

    async def _answered(
        self, request: Request, receive: Receive, route: Route, params: Mapping[str, str]
    ) -> Response | None:
        """None if the client is gone."""
        try:
            asked = Asked(request, receive, params, self.services)
            if route.uploads:
                return await to_thread.run_sync(partial(self._run, asked, route), limiter=self._limiter())
            if request.method in _WITHOUT_BODY:
                return await to_thread.run_sync(partial(self._run, asked, route))
            allowed = await to_thread.run_sync(partial(self._allowed, asked, route))
            limit = MAX_ANYBODY if route.anybody else MAX_JSON
            return await to_thread.run_sync(route.handler, await allowed.awaited(limit=limit))
        except GoneError:
            return None
        except ForeignRepositoryError as error:
            if self._upstream is not None and route.action is Action.READ:
                return await self._passed_through(self._upstream, request, receive)
            return refusal(error)
        except RegistryError as error:
            return refusal(error)

    def _run(self, asked: Asked, route: Route) -> Response:
        return route.handler(self._allowed(asked, route))

    def _allowed(self, asked: Asked, route: Route) -> Asked:
        """By whom, and about what. Raises DeniedError, NotFoundError, TooManyRequestsError."""
        if route.signed or route.anybody:
            return asked
        request = asked.request
        caller = self._gatekeeper.caller(request, writes=route.action is not Action.READ)
        if route.action is not Action.READ:
            if caller.token is None and (origin := request.headers.get("origin")):
                raise OtherSiteError(origin)
            self._count(route, caller)
        repository = None
        if route.names_repository:
            shown = f"{asked.params['ns']}/{asked.params['name']}"
            repository = find_repository(caller, shown, self.services.histories, action=route.action)
        elif route.action is Action.READ and not (caller.open or caller.token or caller.anonymous_read):
            caller.require(Action.READ)
        return replace(asked, maker=caller, about=repository)

    def _count(self, route: Route, caller: Caller) -> None:
        """Raises TooManyRequestsError."""
        if route.pace is table.Pace.PUSH:
            self._gatekeeper.count_push(caller)
        elif (
            route.pace is table.Pace.COMMIT
            and (after := self._commits.take(caller.actor, time.monotonic())) is not None
        ):
            raise TooManyRequestsError(after)

    async def _unknown(self, request: Request, receive: Receive, parts: list[str]) -> Response | None:
        """Clients try what a server may not have: they are told at once, and go on."""
        if methods := table.methods_of(parts):
            return JSONResponse(
                {"error": f"{request.method} is not among {', '.join(methods)}"}, 405, {"Allow": ", ".join(methods)}
            )
        if self._upstream is not None and self._upstream.knows(request.method, parts):
            return await self._passed_through(self._upstream, request, receive)
        headers = {"X-Error-Message": _UNKNOWN} if request.method not in _WITHOUT_BODY else None
        return JSONResponse({"error": _UNKNOWN}, 404, headers)

    async def _passed_through(self, upstream: PassThrough, request: Request, receive: Receive) -> Response | None:
        """For those who may read anything here at all: nobody else makes this server ask another. None if the client is gone."""
        try:
            caller = await to_thread.run_sync(partial(self._gatekeeper.caller, request, writes=False))
            if not (caller.open or caller.token or caller.anonymous_read):
                caller.require(Action.READ)
            body = b""
            if request.method not in _WITHOUT_BODY:
                asked = await Asked(request, receive, {}, self.services).awaited(limit=MAX_PATHS_INFO)
                body = await to_thread.run_sync(partial(asked.body, limit=MAX_PATHS_INFO))
            return await upstream.answer(request, body)
        except GoneError:
            return None
        except RegistryError as error:
            return refusal(error)

    def _limiter(self) -> CapacityLimiter:
        if self._uploads is None:
            self._uploads = CapacityLimiter(_UPLOADS)
        return self._uploads
