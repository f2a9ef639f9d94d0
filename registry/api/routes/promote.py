"""An alias that moves only if the scores hold."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from registry.api.callers import Caller, Requires
from registry.api.names import Alias, Name, Namespace
from registry.api.once import Key, Once, same_request
from registry.api.problems import of_error
from registry.api.routes.aliases import AliasHasMovedError, IfMatch, IfNoneMatch, expected
from registry.api.texts import RequestBody, VersionNumber
from registry.domain.access import Action
from registry.domain.names import AdapterName, Reference
from registry.errors import AliasMovedError, GateClosedError
from registry.operations.gate import asked

router = APIRouter(prefix="/v1/adapters/{ns}/{name}", tags=["aliases and tags"])

Tagger = Annotated[Caller, Depends(Requires(Action.TAG))]


class Promotion(RequestBody):
    """The conditions of ``adapters promote``; at least one."""

    version: VersionNumber = Field(examples=[2])
    minimum: list[str] = Field([], max_length=100, description="Such as acc>=0.8.", examples=[["acc>=0.7"]])
    no_regression: list[str] = Field([], max_length=100, description="METRIC or METRIC:TOLERANCE.", examples=[["acc"]])
    against: str | None = Field(
        None, max_length=300, description="An alias of the adapter, or a reference; else what the alias points at now."
    )
    noise: float | None = Field(
        None, ge=0, le=100, allow_inf_nan=False, description="Combined standard errors that may be chance."
    )


class _ClosedError(Exception):
    """Nothing moved, so there is nothing to keep."""

    def __init__(self, failure: GateClosedError, outcome: dict[str, object]) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.outcome = outcome


@router.post("/aliases/{alias}/promote", summary="Move an alias if the gate holds, in one transaction")
def promote_alias(
    request: Request,
    caller: Tagger,
    ns: Namespace,
    name: Name,
    alias: Alias,
    wanted: Promotion,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    idempotency_key: Key = None,
) -> Response:
    """For whoever may read it, too. 422 with every condition if the gate is closed; then nothing moved."""
    adapter = AdapterName(ns, name)
    caller.require(Action.READ, adapter)  # a gate tells what the scores are
    against = wanted.against
    if against is not None and any(mark in against for mark in "/@:"):
        against = str(caller.reference(against))
    gate = asked(
        None,
        against=against,
        minimum=wanted.minimum,
        no_regression=wanted.no_regression,
        noise=wanted.noise,
    )

    def promoted(caller: Caller) -> dict[str, Any]:
        reference = str(Reference(adapter, number=wanted.version))
        moves_from = expected(caller, str(adapter), alias, if_match, if_none_match)
        promotion = caller.registry.promote(reference, alias, gate, expected=moves_from)
        if promotion.outcome.failure is not None:
            raise _ClosedError(promotion.outcome.failure, promotion.document())
        return promotion.document()

    once: Once = request.app.state.once
    try:
        answer = once.done(caller, idempotency_key, same_request(request, wanted, if_match, if_none_match), promoted)
    except _ClosedError as closed:
        return of_error(closed.failure, outcome=closed.outcome)
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{adapter}:{alias}", expected=error.expected, actual=error.actual) from None
    return JSONResponse(answer, headers={"ETag": f'"{wanted.version}"'})
