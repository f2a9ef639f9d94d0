"""Look-ups for serving layers: from a name to the bytes that are to be loaded."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from registry.api import problems
from registry.api.addresses import public_url
from registry.api.callers import Caller, Requires
from registry.api.documents import Documents
from registry.api.names import Name, Namespace
from registry.api.texts import RequestBody
from registry.domain.access import Action
from registry.domain.names import AdapterName, AliasName, Reference
from registry.errors import InvalidInputError, InvalidNameError, RegistryError, UnavailableError
from registry.operations.resolve import Wanted

#: Of an answer to many names: bytes, and seconds after which the rest must be asked for again.
_LONGEST, _SECONDS = 16 << 20, 10.0


class TooMuchError(InvalidInputError):
    http_status = 413
    default_code = "too-large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is longer than {limit:,} bytes", hint="ask for fewer names at once")


_LATER = UnavailableError(f"not answered within the request's {_SECONDS:.0f} s: ask for this name again")

router = APIRouter(prefix="/v1", tags=["look-ups"])


class Asked(BaseModel):
    """At most one of ``alias`` and ``version``; without either, the newest version that is not yanked and fits."""

    alias: str | None = Field(None, max_length=96)
    version: int | None = Field(None, ge=1, lt=10**9)
    base: str | None = Field(None, max_length=200, description="The base model that the engine runs.")
    engine: str | None = Field(None, max_length=60, description="vllm, or vllm==0.33.0: it must be able to serve it.")

    def wanted(self) -> Wanted:
        return Wanted(AliasName(self.alias) if self.alias is not None else None, self.version, self.base, self.engine)


@router.get(
    "/resolve/{ns}/{name}",
    summary="What a name means, with the addresses of its files",
    response_model=dict[str, Any],
)
def resolve(
    request: Request,
    caller: Annotated[Caller, Depends(Requires(Action.READ))],
    ns: Namespace,
    name: Name,
    asked: Annotated[Asked, Query()],
) -> Response:
    documents: Documents = request.app.state.documents
    documents.catch_up()
    answer = documents.answer(caller.registry, AdapterName(ns, name), asked.wanted())
    if isinstance(answer, RegistryError):
        return problems.of_error(answer)
    return Response(answer.at(public_url(request)), media_type="application/json")


class Names(RequestBody):
    names: list[str] = Field(min_length=1, max_length=1000, description="team/x, team/x@3 or team/x:production")
    base: str | None = Field(None, max_length=200)
    engine: str | None = Field(None, max_length=60)


@router.post(
    "/resolve",
    summary="Up to 1,000 names at once; each is answered or refused by itself",
    response_class=JSONResponse,
)
def resolve_many(
    request: Request, caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))], asked: Names
) -> Response:
    """Each of ``items`` has its ``name``, and ``found`` as a single look-up answers it or ``problem``. A name that is asked for
    twice is answered once; what takes too long is a ``problem`` of status 503, to be asked for again."""
    documents: Documents = request.app.state.documents
    documents.catch_up()
    address = public_url(request)
    deadline = time.monotonic() + _SECONDS

    def one(text: str) -> str:
        try:
            reference = Reference.parse(text, namespace=caller.registry.namespace)
            if reference.adapter is None:
                raise InvalidNameError("name", text, "team/x, team/x@3 or team/x:production")
            if not (caller.anonymous_read and documents.is_public(caller.registry, reference.adapter)):
                caller.require(Action.READ, reference.adapter)
            wanted = Wanted(reference.alias, reference.number, asked.base, asked.engine)
            answer = documents.answer(caller.registry, reference.adapter, wanted)
        except RegistryError as error:
            return _problem(error)
        return _problem(answer) if isinstance(answer, RegistryError) else f'"found":{answer.at(address)}'

    items, left = [], _LONGEST
    for text in dict.fromkeys(asked.names):
        answer = _problem(_LATER) if time.monotonic() > deadline else one(text)
        items.append(f'{{"name":{json.dumps(text)},{answer}}}')
        left -= len(items[-1])
        if left < 0:
            raise TooMuchError(_LONGEST)
    return Response(f'{{"items":[{",".join(items)}]}}', media_type="application/json")


def _problem(error: RegistryError) -> str:
    problem = {"status": error.http_status, "code": error.code, "detail": error.message_elsewhere}
    return f'"problem":{json.dumps(problem)}'
