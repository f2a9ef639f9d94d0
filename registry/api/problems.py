"""Errors as problem documents (RFC 9457): a stable ``code``, one sentence, and what to do.

``type`` is a URN of the code, so that it means something without a page being there.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from registry.api.callers import TooManyRequestsError, UnauthenticatedError
from registry.api.ranges import UnsatisfiableRangeError
from registry.api.unreadable import sentence
from registry.api.uploads import WrongOffsetError
from registry.errors import AliasMovedError, CorruptionError, InvalidInputError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi import FastAPI, Request
    from starlette.routing import BaseRoute

_log = logging.getLogger("adapters.server")
MEDIA_TYPE = "application/problem+json"
UNKNOWN_ADAPTER = "unknown-adapter"


def problem(status: int, code: str, detail: str, **more: object) -> JSONResponse:
    document = {
        "type": f"urn:adapter-registry:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **{key: value for key, value in more.items() if value is not None},
    }
    return JSONResponse(document, status, media_type=MEDIA_TYPE)


def of_error(error: RegistryError, **members: object) -> JSONResponse:
    """Where there is no such adapter, the hint would name one that the caller may not know of."""
    hint = "`adapters list` shows what there is" if error.code == UNKNOWN_ADAPTER else error.hint
    findings = [finding.document() for finding in error.findings] or None
    more: dict[str, object] = {"exit_code": error.exit_code, "hint": hint, "findings": findings, **members}
    status = error.http_status
    if isinstance(error, AliasMovedError):
        more |= {"expected": error.expected, "actual": error.actual}
    answer = problem(status, error.code, error.message_elsewhere, **more)
    if isinstance(error, UnauthenticatedError):
        answer.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnsatisfiableRangeError):
        answer.headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, WrongOffsetError):
        answer.headers["Upload-Offset"] = str(error.offset)
    if isinstance(error, TooManyRequestsError):
        answer.headers["Retry-After"] = str(error.after)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = "1"
    if isinstance(error, CorruptionError) or error.path is not None:
        _log.error("%s: %s", error.code, error.message)
    return answer


def _methods_at(path: str, routes: Iterable[BaseRoute]) -> list[str]:
    """Of all routes with this path; the router itself says those of the first."""
    known = [route for route in routes if isinstance(route, Route) and route.path_regex.fullmatch(path)]
    return sorted({method for route in known for method in route.methods or ()})


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    @app.exception_handler(RegistryError)
    def registry_error(_request: Request, error: RegistryError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place, *inside = first["loc"]
        return of_error(InvalidInputError(sentence([{**first, "loc": inside}], place=f"the {place}")))

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        answer = problem(error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(_methods_at(request.url.path, routes))
        return answer

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        """Our mistake: whoever serves writes down where it happened, nobody else is told."""
        request_id = getattr(request.state, "request_id", None)
        _log.error("request %s failed: %s, see below", request_id, type(error).__name__)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal-error",
            "the server failed at this request",
            hint="tell its operator the x-request-id of this answer",
            exit_code=1,
        )
