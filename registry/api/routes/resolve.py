"""Look-ups for serving layers: from a name to the bytes that are to be loaded."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from registry.api.addresses import public_url
from registry.api.callers import Caller, Requires, unknown_adapter
from registry.api.documents import Documents
from registry.api.names import Name, Namespace
from registry.domain.access import Action
from registry.domain.names import AdapterName, AliasName, Reference
from registry.errors import InvalidInputError, InvalidNameError, RegistryError
from registry.operations.resolve import Wanted, resolved

router = APIRouter(prefix="/v1", tags=["look-ups"])

#: Bytes of a batch's answer.
_LARGEST = 16 << 20


class Asked(BaseModel):
    """At most one of ``alias`` and ``version``; without either, the newest version that is not yanked and fits."""

    alias: str | None = Field(None, max_length=96)
    version: int | None = Field(None, ge=1, lt=10**9)
    base: str | None = Field(None, max_length=200, description="The base model that the engine runs.")
    engine: str | None = Field(None, max_length=60, description="vllm, or vllm==0.33.0: it must be able to serve it.")

    def wanted(self) -> Wanted:
        return Wanted(AliasName(self.alias) if self.alias else None, self.version, self.base, self.engine)


@router.get("/resolve/{ns}/{name}", summary="What a name means, with the addresses of its files")
def resolve(
    request: Request,
    caller: Annotated[Caller, Depends(Requires(Action.READ))],
    ns: Namespace,
    name: Name,
    asked: Annotated[Asked, Query()],
) -> dict[str, Any]:
    found = resolved(
        AdapterName(ns, name), asked.wanted(), blobs=caller.registry.blobs, catalog=caller.registry.catalog
    )
    return found.document(public_url(request))


class Names(BaseModel):
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
    """Each of ``items`` has its ``name``, and ``found`` as a single look-up answers it or ``problem``."""
    documents: Documents = request.app.state.documents
    documents.catch_up()
    address = public_url(request)

    def one(text: str) -> str:
        try:
            reference = Reference.parse(text, namespace=caller.registry.namespace)
            if reference.adapter is None:
                raise InvalidNameError("name", text, "team/x, team/x@3 or team/x:production")
            if not (caller.anonymous_read and documents.is_public(caller.registry, reference.adapter)):
                caller.require(Action.READ, reference.adapter)
            if not documents.is_there(caller.registry, reference.adapter):
                raise unknown_adapter(reference.adapter)
            wanted = Wanted(reference.alias, reference.number, asked.base, asked.engine)
            return f'"found":{documents.encoded(caller.registry, reference.adapter, wanted, address)}'
        except RegistryError as error:
            problem = {"status": error.http_status, "code": error.code, "detail": error.message}
            return f'"problem":{json.dumps(problem)}'

    answered: dict[str, str] = {}
    length = 0
    for text in asked.names:
        if text not in answered:
            answered[text] = one(text)
        length += len(answered[text])
        if length > _LARGEST:
            raise TooLongAnswerError(_LARGEST)
    items = ",".join(f'{{"name":{json.dumps(text)},{answered[text]}}}' for text in asked.names)
    return Response(f'{{"items":[{items}]}}', media_type="application/json")


class TooLongAnswerError(InvalidInputError):
    http_status = 413
    default_code = "too-large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer would be longer than {limit:,} bytes", hint="ask for fewer names at a time")
