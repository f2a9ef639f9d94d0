"""The store itself, for administrators: is it sound, what may go, what is there."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from registry.api.callers import Caller, Requires
from registry.api.names import Digest
from registry.api.preconditions import Conditional
from registry.domain.access import Action
from registry.errors import ConflictError
from registry.operations.manifests import surviving

router = APIRouter(prefix="/v1/store", tags=["store"])

Admin = Annotated[Caller, Depends(Requires(Action.ADMIN))]
Remover = Annotated[Caller, Depends(Conditional(Action.ADMIN))]


class Doctor(BaseModel):
    deep: bool = Field(default=False, description="Read and hash every stored byte.")


class Gc(BaseModel):
    grace: float = Field(
        86400.0, ge=0, le=10**9, description="Seconds: blobs and unfinished uploads younger than that are left alone."
    )
    dry_run: bool = True


@router.post("/doctor", summary="Is everything that was acknowledged there and unchanged?")
def doctor(caller: Admin, wanted: Doctor) -> dict[str, Any]:
    found = caller.registry.doctor(deep=wanted.deep)
    return {
        "ok": not found.problems,
        "versions": found.versions,
        "blobs": found.blobs,
        "unreferenced": found.unreferenced,
        "problems": [problem.document() for problem in found.problems],
    }


@router.post("/verify", summary="Is the catalog what its history says?")
def verify(caller: Admin) -> dict[str, list[str]]:
    return {"problems": caller.registry.catalog.verify(surviving(caller.registry.blobs))}


@router.post("/gc", summary="Remove blobs that nothing reaches")
def gc(caller: Remover, wanted: Gc) -> dict[str, Any]:
    found = caller.registry.gc(grace=wanted.grace, dry_run=wanted.dry_run)
    return {"blobs": list(found.blobs), "bytes": found.bytes, "leftovers": list(found.leftovers)}


@router.get("/blobs", summary="Every blob")
def blobs(caller: Admin) -> dict[str, list[str]]:
    return {"digests": [str(digest) for digest in caller.registry.blobs.digests()]}


@router.delete("/blobs/{digest}", summary="Remove a blob that nothing needs", status_code=204)
def delete_blob(caller: Remover, digest: Digest) -> None:
    with caller.registry.catalog.writing() as writer:
        if not writer.unreferenced([digest]):
            raise ConflictError(f"{digest} is needed", code="blob-in-use", hint="delete the versions that need it")
        caller.registry.blobs.delete(digest)
