"""Adapters and their versions: finding, reading, hiding, removing."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from registry.api.callers import Caller, Requires, shown_parents, unknown_adapter
from registry.api.cursors import LONGEST, cursor_behind, position_at
from registry.api.names import Name, Namespace, Number
from registry.api.preconditions import Conditional
from registry.api.texts import RequestBody, Why
from registry.api.told import changed
from registry.domain.access import Action
from registry.domain.names import MAX_NUMBER, AdapterName, Reference
from registry.domain.query import VersionQuery
from registry.errors import NotFoundError
from registry.operations.find import asked
from registry.operations.show import show, summary_document

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

Reader = Annotated[Caller, Depends(Requires(Action.READ))]
Searcher = Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))]


class Conditions(BaseModel):
    """All of them must hold. The bounds are those of :class:`registry.domain.query.VersionQuery`."""

    text: str | None = Field(None, description="Part of an adapter's name.")
    namespace: str | None = Field(None)
    base: str | None = Field(None, description="Base model; mirrors count as what they mirror.")
    rank: str | None = Field(None, description="16, 8..64, 8.. or ..64")
    target: list[str] = Field([], description="Must all be adapted.")
    type: str | None = Field(None, description="PEFT method: LORA, IA3, …")
    task: str | None = Field(None, description="Task type: CAUSAL_LM, SEQ_CLS, …")
    tag: list[str] = Field([], description="key=value or key.")
    alias: str | None = Field(None, description="The version this alias points at.")
    metric: list[str] = Field([], description="Conditions such as acc>=0.8 or arc_easy/acc>=0.8.")
    parent: str | None = Field(None, description="A version that it was made from: team/x@3.")
    all_versions: bool = False

    def query(self, caller: Caller, *, sort: str | None, reverse: bool = False, limit: int) -> VersionQuery:
        """Raises InvalidNameError, NotFoundError."""
        query = asked(
            self.text,
            namespace_of_names=caller.registry.namespace,
            base=self.base,
            rank=self.rank,
            targets=self.target,
            peft_type=self.type,
            task_type=self.task,
            tags=self.tag,
            alias=self.alias,
            metrics=self.metric,
            parent=caller.registry.catalog.resolve(caller.reference(self.parent)).digest
            if self.parent is not None
            else None,
            sort=sort,
            reverse=reverse,
            limit=limit,
            all_versions=self.all_versions,
            namespace=self.namespace,
        )
        return query.seen_by(caller.visible)


class Search(Conditions):
    """The same questions as ``adapters list``."""

    sort: str | None = Field(None, description="name, created, rank, bytes, parameters, or a metric: best first.")
    reverse: bool = False
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = Field(None, description="`next` of the page before.", max_length=LONGEST)

    def page(self, caller: Caller) -> VersionQuery:
        """Raises InvalidNameError, InvalidInputError, NotFoundError."""
        query = self.query(caller, sort=self.sort, reverse=self.reverse, limit=self.limit)
        return replace(query, after=position_at(self.cursor, query)) if self.cursor else query


@router.get("", summary="Find versions")
def search(caller: Searcher, wanted: Annotated[Search, Query()]) -> dict[str, Any]:
    query = wanted.page(caller)
    found = caller.registry.catalog.search(query)
    more = len(found) == wanted.limit
    return {
        "items": [summary_document(version) for version in found],
        "next": cursor_behind(query, found[-1]) if more else None,
    }


@router.get("/{ns}/{name}", summary="An adapter")
def adapter(caller: Reader, ns: Namespace, name: Name) -> dict[str, Any]:
    known = caller.registry.catalog.find_adapter(AdapterName(ns, name))
    if known is None:
        raise unknown_adapter(AdapterName(ns, name))
    try:
        newest = summary_document(caller.registry.catalog.resolve(Reference(known.name)))
    except NotFoundError:  # none yet, or all are yanked
        newest = None
    return {
        "adapter": str(known.name),
        "private": known.private,
        "aliases": caller.registry.catalog.aliases(known.name),
        "newest": newest,
    }


@router.get("/{ns}/{name}/versions", summary="Its versions, newest first")
def versions(
    caller: Reader,
    ns: Namespace,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Only numbers below this one.")] = None,
) -> dict[str, Any]:
    found = caller.registry.catalog.versions(AdapterName(ns, name), below=before, limit=limit)
    return {
        "items": [summary_document(version) for version in found],
        "next": found[-1].number if len(found) == limit else None,
    }


@router.get("/{ns}/{name}/versions/{number}", summary="Everything recorded about a version")
def version(caller: Reader, ns: Namespace, name: Name, number: Number) -> dict[str, Any]:
    reference = Reference(AdapterName(ns, name), number=number)
    found = show(reference, blobs=caller.registry.blobs, catalog=caller.registry.catalog, visible=caller.visible)
    edges = [edge.document() for edge in found.manifest.lineage]
    return {**found.document(), "lineage": shown_parents(caller, edges)}


class Visibility(RequestBody):
    private: bool


@router.put("/{ns}/{name}", summary="Make an adapter, or hide or show it")
def put_adapter(
    caller: Annotated[Caller, Depends(Conditional(Action.PUSH))], ns: Namespace, name: Name, wanted: Visibility
) -> dict[str, Any]:
    """Whoever may push may make and hide it; what is hidden, those show who may delete it."""
    with caller.registry.catalog.writing() as writer:
        caller.require_visibility(AdapterName(ns, name), private=wanted.private)
        created = writer.create_adapter(AdapterName(ns, name), private=wanted.private)
        writer.set_private(AdapterName(ns, name), private=wanted.private)
    return {"adapter": f"{ns}/{name}", "private": wanted.private, "created": created}


class Reason(RequestBody):
    reason: Why


@router.delete("/{ns}/{name}", summary="Remove an adapter with all its versions", status_code=204)
def delete_adapter(
    caller: Annotated[Caller, Depends(Conditional(Action.DELETE))], ns: Namespace, name: Name, why: Reason
) -> None:
    with caller.registry.catalog.writing() as writer:
        writer.remove_adapter(AdapterName(ns, name), why.reason)


@router.delete("/{ns}/{name}/versions/{number}", summary="Delete a version", status_code=204)
def delete_version(
    caller: Annotated[Caller, Depends(Conditional(Action.DELETE))],
    ns: Namespace,
    name: Name,
    number: Number,
    why: Reason,
) -> None:
    caller.registry.delete(f"{ns}/{name}@{number}", why.reason)


@router.put("/{ns}/{name}/versions/{number}/yank", summary="Hide a version from search")
def yank(
    caller: Annotated[Caller, Depends(Conditional(Action.YANK))], ns: Namespace, name: Name, number: Number, why: Reason
) -> dict[str, Any]:
    return changed(caller, caller.registry.yank(f"{ns}/{name}@{number}", why.reason))


@router.delete("/{ns}/{name}/versions/{number}/yank", summary="Take a yank back")
def unyank(
    caller: Annotated[Caller, Depends(Conditional(Action.YANK))], ns: Namespace, name: Name, number: Number
) -> dict[str, Any]:
    return changed(caller, caller.registry.unyank(f"{ns}/{name}@{number}"))
