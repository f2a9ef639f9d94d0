"""Aliases, tags: what moves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Response
from pydantic import Field

from registry.api.callers import Caller, Requires
from registry.api.conditions import etags
from registry.api.names import Alias, Name, Namespace, Number
from registry.api.preconditions import Conditional
from registry.api.texts import RequestBody, VersionNumber
from registry.api.told import changed
from registry.catalog.protocol import ANYTHING, Anything
from registry.domain.access import Action
from registry.domain.names import AliasName
from registry.errors import AliasMovedError, ConflictError, NotFoundError

router = APIRouter(prefix="/v1/adapters/{ns}/{name}", tags=["aliases and tags"])

Reader = Annotated[Caller, Depends(Requires(Action.READ))]
Tagger = Annotated[Caller, Depends(Requires(Action.TAG))]
Labeller = Annotated[Caller, Depends(Conditional(Action.TAG))]
IfMatch = Annotated[
    str | None,
    Header(
        description='`"3"`: only from version 3; `"3", "4"`: from either; `*`: if it is there; `"none"`: if it is not.'
    ),
]
IfNoneMatch = Annotated[
    str | None, Header(description='`*`: only if it is not there; `"3"`: only from another version than 3.')
]
#: In the place of a version: the alias is not there.
_NONE = "none"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class AliasHasMovedError(AliasMovedError):
    """The precondition of a request does not hold (RFC 9110, 13.1.1)."""

    http_status = 412


class AliasElsewhereError(ConflictError):
    """A precondition that names several versions, or any, does not hold."""

    http_status = 412
    default_code = "alias-moved"

    def __init__(self, alias: str, condition: str, *, actual: int | None) -> None:
        where = "is not there" if actual is None else f"points at version {actual}"
        super().__init__(f"alias {alias} {where}, and the request has {condition:.100}; it was not moved")


class Pointing(RequestBody):
    version: VersionNumber = Field(examples=[3])


@router.get("/aliases", summary="Where its aliases point")
def aliases(caller: Reader, ns: Namespace, name: Name) -> dict[str, int]:
    return caller.registry.aliases(f"{ns}/{name}")


@router.get("/aliases/{alias}", summary="Where an alias points")
def alias(caller: Reader, ns: Namespace, name: Name, alias: Alias, response: Response) -> dict[str, Any]:
    found = _actual(caller, f"{ns}/{name}", alias)
    if found is None:
        raise NotFoundError(f"{ns}/{name} has no alias {alias}", code="unknown-alias")
    response.headers["ETag"] = _etag(found)
    return {"alias": alias, "version": found}


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
    if_none_match: IfNoneMatch = None,
) -> dict[str, Any]:
    start = expected(caller, f"{ns}/{name}", alias, if_match, if_none_match)
    try:
        move = caller.registry.set_alias(f"{ns}/{name}", alias, wanted.version, expected=start)
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{ns}/{name}:{alias}", expected=error.expected, actual=error.actual) from None
    response.headers["ETag"] = _etag(wanted.version)
    previous = move.before if move else wanted.version
    return {"alias": alias, "version": wanted.version, "previous": previous, "moved": move is not None}


@router.delete("/aliases/{alias}", summary="Remove an alias; its history stays", status_code=204)
def delete_alias(
    caller: Tagger,
    ns: Namespace,
    name: Name,
    alias: Alias,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> None:
    start = expected(caller, f"{ns}/{name}", alias, if_match, if_none_match)
    try:
        caller.registry.remove_alias(f"{ns}/{name}", alias, expected=start)
    except AliasMovedError as error:
        raise AliasHasMovedError(f"{ns}/{name}:{alias}", expected=error.expected, actual=error.actual) from None


@router.put("/versions/{number}/tags", summary="Set tags, leaving the others")
def put_tags(
    caller: Labeller, ns: Namespace, name: Name, number: Number, tags: Annotated[dict[str, str], Body()]
) -> dict[str, Any]:
    return changed(caller, caller.registry.set_tags(f"{ns}/{name}@{number}", tags))


@router.delete("/versions/{number}/tags/{key:path}", summary="Remove a tag")
def delete_tag(caller: Labeller, ns: Namespace, name: Name, number: Number, key: str) -> dict[str, Any]:
    return changed(caller, caller.registry.remove_tags(f"{ns}/{name}@{number}", key))


def _etag(number: int) -> str:
    return f'"{number}"'


def expected(
    caller: Caller, adapter: str, alias: AliasName, if_match: str | None, if_none_match: str | None = None
) -> int | Anything | None:
    """Where the alias must point when it moves, so that the request's conditions hold (RFC 9110, 13.1).

    Raises InvalidInputError for what is no list of ETags, AliasElsewhereError for what does not hold now.
    """
    if if_match is None and if_none_match is None:
        return ANYTHING
    if if_none_match is None and len(stated := _stated("If-Match", if_match or "")) == 1 and ANYTHING not in stated:
        return stated[0]
    actual = _actual(caller, adapter, alias)
    for name, text, wanted in (("If-Match", if_match, True), ("If-None-Match", if_none_match, False)):
        if text is not None and _covers(_stated(name, text), actual) is not wanted:
            raise AliasElsewhereError(f"{adapter}:{alias}", f"{name}: {text}", actual=actual)
    return actual


def _covers(stated: Sequence[int | Anything | None], actual: int | None) -> bool:
    return actual in stated or (ANYTHING in stated and actual is not None)


def _stated(name: str, text: str) -> list[int | Anything | None]:
    """What a header says. A weak ETag is never that of an alias, and what is no number is that of none."""
    if text.strip() == "*":
        return [ANYTHING]
    found: list[int | Anything | None] = []
    for weak, tag in etags(name, text):
        if (tag == _NONE or _NUMBER.fullmatch(tag)) and not (weak and name == "If-Match"):
            found.append(None if tag == _NONE else int(tag))
    return found


def _actual(caller: Caller, adapter: str, alias: AliasName) -> int | None:
    found = {key.lower(): number for key, number in caller.registry.aliases(adapter).items()}
    return found.get(alias.key)
