"""An alias that moves only if the scores hold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from registry.api.callers import Caller, Requires
from registry.api.names import Alias, Name, Namespace
from registry.api.problems import of_error
from registry.api.routes.aliases import AliasHasMovedError, IfMatch, expected
from registry.api.routes.finding import readable
from registry.domain.access import Action
from registry.domain.names import AdapterName, Reference
from registry.errors import AliasMovedError
from registry.operations.gate import asked
from registry.operations.promote import promote

router = APIRouter(prefix="/v1/adapters/{ns}/{name}", tags=["aliases and tags"])

Tagger = Annotated[Caller, Depends(Requires(Action.TAG))]


class Promotion(BaseModel):
    """The conditions of ``adapters promote``; at least one."""

    version: int = Field(ge=1, lt=10**9, examples=[2])
    minimum: list[str] = Field([], max_length=100, description="Such as acc>=0.8.", examples=[["acc>=0.7"]])
    no_regression: list[str] = Field([], max_length=100, description="METRIC or METRIC:TOLERANCE.", examples=[["acc"]])
    against: str | None = Field(
        None, max_length=300, description="An alias of the adapter, or a reference; else what the alias points at now."
    )
    noise: float | None = Field(
        None, ge=0, le=100, allow_inf_nan=False, description="Combined standard errors that may be chance."
    )


@router.post("/aliases/{alias}/promote", summary="Move an alias if the gate holds, in one transaction")
def promote_alias(
    caller: Tagger, ns: Namespace, name: Name, alias: Alias, wanted: Promotion, if_match: IfMatch = None
) -> Response:
    """For whoever may read it, too. 422 with every condition if the gate is closed; then nothing moved."""
    registry, adapter = caller.registry, AdapterName(ns, name)
    caller.require(Action.READ, adapter)  # a gate tells what the scores are
    against = wanted.against
    if against is not None and any(mark in against for mark in "/@:"):
        against = str(readable(caller, against))
    gate = asked(
        None,
        against=against,
        minimum=wanted.minimum,
        no_regression=wanted.no_regression,
        noise=wanted.noise,
    )
    try:
        promotion = promote(
            Reference(adapter, number=wanted.version),
            alias,
            gate,
            namespace=registry.namespace,
            catalog=registry.catalog,
            expected=expected(caller, str(adapter), alias, if_match),
        )
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{adapter}:{alias}", expected=error.expected, actual=error.actual) from None
    if promotion.outcome.failure is not None:
        return of_error(promotion.outcome.failure, outcome=promotion.document())
    return JSONResponse(promotion.document(), headers={"ETag": f'"{wanted.version}"'})
