"""What OpenAPI is told that the signatures of the routes do not say: who may, which refusals there are, and examples.

The examples are requests and answers of a real server; a test asks them again (``python -m tests.api.examples`` writes them).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute

from registry.api import problems
from registry.api.callers import Requires
from registry.api.preconditions import Conditional
from registry.domain.access import Action

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from registry.api.callers import Requires as Requirement

Document = dict[str, Any]

_TEXT = {"type": "string"}
_PROBLEM: Document = {
    "type": "object",
    "description": "RFC 9457. Programs look at `code`, which is stable; `detail` is one sentence for people.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:adapter-registry:unknown-adapter"]},
        "title": _TEXT,
        "status": {"type": "integer"},
        "code": _TEXT,
        "detail": _TEXT,
        "hint": {"type": "string", "description": "What to do next."},
        "exit_code": {"type": "integer", "description": "With which `adapters` would end."},
        "findings": {"type": "array", "items": {"type": "object"}, "description": "Every reason, each with its rule."},
    },
}
#: Codes that a request to any route, or any route of an action, may be refused with.
_OF_ALL = {429: "too-many-requests", 503: "unavailable"}
_OF_CALLERS = {
    400: "invalid-input, invalid-value, invalid-name, unknown-parameter, token-in-url",
    401: "unauthenticated",
    403: "forbidden",
    421: "wrong-host",
}
_UNKNOWN = "unknown-adapter, unknown-version, unknown-alias, version-deleted"
#: Those of one route, beside 404 for each that has a name in its path.
_OF_ROUTES: Mapping[str, Mapping[int, str]] = {
    "GET /v1/adapters": {404: _UNKNOWN},
    "PUT /v1/adapters/{ns}/{name}": {409: "name-taken"},
    "DELETE /v1/adapters/{ns}/{name}": {409: "version-in-use"},
    "POST /v1/adapters/{ns}/{name}/versions": {
        404: "not-uploaded, unknown-version",
        409: "idempotency-key-reused, already-done, alias-moved",
        422: "does-not-fit, or the rule of the one error",
    },
    "POST /v1/adapters/{ns}/{name}/versions/{number}/evaluations": {409: "idempotency-key-reused, already-done"},
    "DELETE /v1/adapters/{ns}/{name}/versions/{number}": {409: "version-in-use"},
    "PUT /v1/adapters/{ns}/{name}/aliases/{alias}": {412: "alias-moved", 422: "version-yanked"},
    "DELETE /v1/adapters/{ns}/{name}/aliases/{alias}": {412: "alias-moved"},
    "POST /v1/adapters/{ns}/{name}/aliases/{alias}/promote": {
        409: "idempotency-key-reused, already-done",
        412: "alias-moved",
        422: "gate-closed, version-yanked",
    },
    "GET /v1/resolve/{ns}/{name}": {422: "not-servable, or the rule of the one error"},
    "GET /v1/best": {404: "none-fits, unknown-adapter"},
    "GET /v1/compare": {404: _UNKNOWN},
    "GET /v1/audit": {404: "unknown-adapter"},
    "POST /v1/check": {404: f"{_UNKNOWN}, unknown-base"},
    "GET /v1/blobs/{digest}": {416: "range"},
    "HEAD /v1/blobs/{digest}": {416: "range"},
    "PUT /v1/blobs/{digest}": {
        409: "upload-in-use",
        411: "length-required",
        413: "too-large",
        415: "content-encoding, content-type",
    },
    "PATCH /v1/uploads/{digest}": {
        409: "wrong-offset, upload-in-use",
        411: "length-required",
        413: "too-large",
        415: "content-encoding, content-type",
    },
    "POST /v1/transactions": {
        404: _UNKNOWN,
        409: "changed-meanwhile, idempotency-key-reused, already-done, alias-moved",
        422: "version-yanked, or the rule of the one error",
    },
    "PUT /v1/base-aliases/{base}": {409: "base-alias-circle"},
    "PUT /v1/base-aliases/{owner}/{base}": {409: "base-alias-circle"},
    "DELETE /v1/store/blobs/{digest}": {409: "blob-in-use"},
}
_BODILESS = ("GET", "HEAD")
#: Answers besides the one in the route's signature.
_ALSO: Mapping[str, Mapping[int, str]] = {
    "GET /v1/blobs/{digest}": {206: "A range of the bytes", 304: "Unchanged"},
    "HEAD /v1/blobs/{digest}": {206: "A range of the bytes", 304: "Unchanged"},
    "PUT /v1/blobs/{digest}": {200: "It was there"},
    "PATCH /v1/uploads/{digest}": {201: "It is a blob now", 202: "More is to come"},
    "POST /v1/adapters/{ns}/{name}/versions": {200: "This content is a version already"},
}


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Replace what the application says of itself."""
    routes = [
        route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    ]
    plain = app.openapi
    found: Document = {}

    def openapi() -> Document:
        if not found:
            found.update(_described(plain(), routes))
        return found

    app.openapi = openapi  # type: ignore[method-assign]


def examples() -> dict[str, Document]:
    """``METHOD path`` → ``request`` (a body, if there is one) and ``answer``."""
    text = (files("registry.api") / "examples.json").read_text(encoding="utf-8")
    loaded: dict[str, Document] = json.loads(text)
    return loaded


def _described(document: Document, routes: Iterable[APIRoute]) -> Document:
    known = examples()
    components = document["components"]
    components["schemas"] = {
        name: schema for name, schema in components["schemas"].items() if not name.endswith("ValidationError")
    } | {"Problem": _PROBLEM}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "adr_…"}}
    for route in routes:
        for method in sorted(route.methods or ()):
            operation = document["paths"][route.path_format][method.lower()]
            key = f"{method} {route.path_format}"
            requirement = next(
                (each.call for each in route.dependant.dependencies if isinstance(each.call, Requires)), None
            )
            _describe(operation, key, requirement, known.get(key, {}))
    return document


def _describe(operation: Document, key: str, requirement: Requirement | None, example: Document) -> None:
    responses: Document = operation["responses"]
    responses.pop("422", None)  # what cannot be read is answered with 400
    if requirement is not None:
        operation["x-action"] = requirement.action.value
        open_to_all = requirement.action is Action.READ
        operation["security"] = [{"token": []}, *([{}] if open_to_all else [])]
    for status, code in _refusals(key, requirement).items():
        content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(status)] = {"description": f"{HTTPStatus(status).phrase}: {code}", "content": content}
    for status, words in _ALSO.get(key, {}).items():
        responses[str(status)] = {"description": words}
    if "request" in example:
        _put_example(operation["requestBody"], example["request"])
    if "answer" in example:
        _put_example(next(responses[status] for status in ("201", "200") if status in responses), example["answer"])


def _refusals(key: str, requirement: Requirement | None) -> dict[int, str]:
    method, path = key.split(" ")
    found = dict(_OF_ALL if path != "/healthz" else {})
    if requirement is not None:
        found |= _OF_CALLERS
        if "{" in path:
            found[404] = _unknown(path)
    if isinstance(requirement, Conditional):
        found[412] = "precondition-failed"
    if method not in _BODILESS:
        found |= {408: "too-slow", 413: "too-large"}
    return dict(sorted({**found, **_OF_ROUTES.get(key, {})}.items()))


def _unknown(path: str) -> str:
    for part, code in (
        ("{ns}", _UNKNOWN),
        ("{digest}", "unknown-blob"),
        ("{base}", "unknown-base"),
        ("{token_id}", "unknown-token"),
        ("{question}", "unknown-question, unknown-adapter, unknown-version"),
    ):
        if part in path:
            return code
    return "not-found"


def _put_example(place: Document, example: object) -> None:
    for media in place.get("content", {}).values():
        media["example"] = example
