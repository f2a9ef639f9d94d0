"""Parameters in an address are ones that its route knows: what is misspelt is refused, and not taken for nothing."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

#: They are refused where callers are told apart, with what to do.
_TOKENS = frozenset(["token", "access_token"])


async def require_known_parameters(request: Request) -> None:
    """A dependency of all routes. Raises InvalidInputError."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute) or not route.path.startswith("/v1/"):
        return
    known = _names(route.dependant)
    for name in request.query_params:
        if name not in known and name not in _TOKENS:
            raise _unknown(name, sorted(known))


def _unknown(name: str, known: list[str]) -> InvalidInputError:
    near = get_close_matches(name, known, n=1)
    does = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}" if known else "it takes none"
    return InvalidInputError(f"this address has no parameter {name!r:.60}: {does}", code="unknown-parameter")


def _names(dependant: Dependant) -> set[str]:
    found = set().union(*map(_names, dependant.dependencies))
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {info.alias or name for name, info in kind.model_fields.items()}
        else:
            found.add(field.alias)
    return found
