"""Base models that the registry knows, and other names for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from registry.api.callers import Caller, Requires
from registry.api.preconditions import Conditional
from registry.api.texts import BaseName, RequestBody
from registry.domain.access import Action
from registry.remote import values

router = APIRouter(prefix="/v1", tags=["bases"])

Reader = Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))]
Admin = Annotated[Caller, Depends(Conditional(Action.ADMIN))]


@router.get("/bases", summary="Every base model that is known module by module, and the aliases")
def bases(caller: Reader) -> dict[str, Any]:
    items = [values.base_document(base) for base in caller.registry.bases()]
    return {"items": items, "aliases": caller.registry.base_aliases().names}


@router.get("/bases/{base}", summary="A base model without an owner", operation_id="base_without_owner")
def bare_base(caller: Reader, base: str) -> dict[str, Any]:
    """The Hub's oldest are called by one word, such as ``gpt2``."""
    return _document(caller, base)


@router.get("/bases/{owner}/{base}", summary="A base model")
def base(caller: Reader, owner: str, base: str) -> dict[str, Any]:
    return _document(caller, f"{owner}/{base}")


def _document(caller: Caller, name: str) -> dict[str, Any]:
    stored, spec = caller.registry.base(name)
    return {
        **stored.id.document(),
        "digest": stored.digest,
        "model_type": spec.model_type,
        "architectures": list(spec.architectures),
        "modules": len(spec.modules),
        "fingerprint": spec.fingerprint,
        "weights_fingerprint": spec.weights_fingerprint,
    }


class Canonical(RequestBody):
    canonical: BaseName = Field(examples=["meta-llama/Llama-3.1-8B"])


@router.put("/base-aliases/{base}", summary="From now on this word means that base", operation_id="put_bare_alias")
def put_bare_alias(caller: Admin, base: str, wanted: Canonical) -> dict[str, Any]:
    return {"changed": caller.registry.alias_base(base, wanted.canonical)}


@router.put("/base-aliases/{owner}/{base}", summary="From now on this name means that base")
def put_alias(caller: Admin, owner: str, base: str, wanted: Canonical) -> dict[str, Any]:
    return {"changed": caller.registry.alias_base(f"{owner}/{base}", wanted.canonical)}


@router.delete("/base-aliases/{base}", summary="Take an alias of one word back", status_code=204)
def delete_bare_alias(caller: Admin, base: str) -> None:
    caller.registry.alias_base(base, None)


@router.delete("/base-aliases/{owner}/{base}", summary="Take an alias back", status_code=204)
def delete_alias(caller: Admin, owner: str, base: str) -> None:
    caller.registry.alias_base(f"{owner}/{base}", None)
