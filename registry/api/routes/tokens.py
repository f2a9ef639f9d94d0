"""Tokens, and who the caller is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from registry.api.arguments import TokenName
from registry.api.callers import Caller, Requires
from registry.api.preconditions import Conditional
from registry.api.texts import RequestBody
from registry.domain.access import Action
from registry.verbs.access import MOST_DAYS

router = APIRouter(prefix="/v1", tags=["access"])

Admin = Annotated[Caller, Depends(Requires(Action.ADMIN))]
Maker = Annotated[Caller, Depends(Conditional(Action.ADMIN))]
_DAYS = 90


class NewToken(RequestBody):
    """Without ``days`` a token expires after 90 days, at most after 365."""

    name: TokenName
    actions: list[Annotated[Action, Field(strict=False)]] = Field(min_length=1, max_length=len(Action))
    namespaces: list[str] = Field(["*"], min_length=1, max_length=100)
    days: int = Field(_DAYS, ge=1, le=MOST_DAYS)


@router.get("/whoami", summary="Who the caller is, and what they may do")
def whoami(caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))]) -> dict[str, Any]:
    return {"actor": caller.actor, "token": caller.token.document() if caller.token else None}


@router.get("/tokens", summary="Every token, without its secret")
def tokens(caller: Admin) -> dict[str, Any]:
    return {"items": [token.document() for token in caller.registry.tokens()]}


@router.post("/tokens", summary="Make a token; its text is in this answer and nowhere else", status_code=201)
def make_token(caller: Maker, wanted: NewToken) -> dict[str, Any]:
    text, made = caller.registry.create_token(wanted.name, wanted.actions, patterns=wanted.namespaces, days=wanted.days)
    return {"text": text, **made.document()}


@router.delete("/tokens/{token_id}", summary="Revoke a token", status_code=204)
def revoke(caller: Maker, token_id: str) -> None:
    caller.registry.revoke_token(token_id)
