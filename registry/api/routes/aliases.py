"""Aliases, tags: what moves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Response
from pydantic import BaseModel, Field

from registry.api.callers import Caller, Requires
from registry.api.names import Alias, Name, Namespace, Number
from registry.api.texts import VersionNumber
from registry.api.told import changed
from registry.catalog.protocol import ANYTHING, Anything
from registry.domain.access import Action
from registry.errors import AliasMovedError, InvalidInputError, NotFoundError

router = APIRouter(prefix="/v1/adapters/{ns}/{name}", tags=["aliases and tags"])

Reader = Annotated[Caller, Depends(Requires(Action.READ))]
Tagger = Annotated[Caller, Depends(Requires(Action.TAG))]
IfMatch = Annotated[str | None, Header(description='`"3"`: only from version 3; `"none"`: only if it is not there.')]


class AliasHasMovedError(AliasMovedError):
    """The precondition of a request does not hold (RFC 9110, 13.1.1)."""

    http_status = 412


class Pointing(BaseModel):
    version: VersionNumber = Field(examples=[3])


@router.get("/aliases", summary="Where its aliases point")
def aliases(caller: Reader, ns: Namespace, name: Name) -> dict[str, int]:
    return caller.registry.aliases(f"{ns}/{name}")


@router.get("/aliases/{alias}", summary="Where an alias points")
def alias(caller: Reader, ns: Namespace, name: Name, alias: Alias, response: Response) -> dict[str, Any]:
    found = {key.lower(): number for key, number in caller.registry.aliases(f"{ns}/{name}").items()}
    if alias.key not in found:
        raise NotFoundError(f"{ns}/{name} has no alias {alias}", code="unknown-alias")
    response.headers["ETag"] = _etag(found[alias.key])
    return {"alias": alias, "version": found[alias.key]}


@router.get("/aliases/{alias}/history", summary="Every move of an alias, oldest first")
def history(caller: Reader, ns: Namespace, name: Name, alias: Alias) -> dict[str, Any]:
    moves = caller.registry.alias_history(f"{ns}/{name}", alias)
    return {"items": [{"from": move.before, "to": move.after, "at": move.at, "actor": move.actor} for move in moves]}


@router.put("/aliases/{alias}", summary="Point an alias at a version")
def put_alias(
    caller: Tagger,
    ns: Namespace,
    name: Name,
    alias: Alias,
    wanted: Pointing,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    try:
        move = caller.registry.set_alias(f"{ns}/{name}", alias, wanted.version, expected=expected(if_match))
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{ns}/{name}:{alias}", expected=error.expected, actual=error.actual) from None
    response.headers["ETag"] = _etag(wanted.version)
    previous = move.before if move else wanted.version
    return {"alias": alias, "version": wanted.version, "previous": previous, "moved": move is not None}


@router.delete("/aliases/{alias}", summary="Remove an alias; its history stays", status_code=204)
def delete_alias(caller: Tagger, ns: Namespace, name: Name, alias: Alias, if_match: IfMatch = None) -> None:
    try:
        caller.registry.remove_alias(f"{ns}/{name}", alias, expected=expected(if_match))
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{ns}/{name}:{alias}", expected=error.expected, actual=error.actual) from None


@router.put("/versions/{number}/tags", summary="Set tags, leaving the others")
def put_tags(
    caller: Tagger, ns: Namespace, name: Name, number: Number, tags: Annotated[dict[str, str], Body()]
) -> dict[str, Any]:
    return changed(caller, caller.registry.set_tags(f"{ns}/{name}@{number}", tags))


@router.delete("/versions/{number}/tags/{key:path}", summary="Remove a tag")
def delete_tag(caller: Tagger, ns: Namespace, name: Name, number: Number, key: str) -> dict[str, Any]:
    return changed(caller, caller.registry.remove_tags(f"{ns}/{name}@{number}", key))


def _etag(number: int) -> str:
    return f'"{number}"'


def expected(if_match: str | None) -> int | Anything | None:
    """Where the alias must point for it to move. Raises InvalidInputError for what is no ETag of an alias."""
    if if_match is None or if_match.strip() == "*":
        return ANYTHING
    text = if_match.strip().removeprefix("W/").strip('"')
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidInputError(
            f'If-Match is {if_match!r:.80}, expected the ETag of the alias, such as "3", or "none"',
            code="invalid-etag",
        )
    return int(text)
