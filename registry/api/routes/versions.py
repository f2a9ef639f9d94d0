"""A version from blobs that were sent, its scores, and what it was made from."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from registry.api.callers import Caller, Requires, shown_parents
from registry.api.hub_protocol.endings import finish_uploads_if_possible
from registry.api.names import Name, Namespace, Number
from registry.api.once import Key, Once, same_request
from registry.api.preconditions import Conditional
from registry.api.receiving import receiver_for
from registry.api.texts import Filter, Metric, Note, RequestBody, Source, Split, Suite, Task
from registry.api.told import changed
from registry.domain.access import Action
from registry.domain.digest import Digest
from registry.domain.lineage import parse_parent
from registry.domain.names import AdapterName, Reference
from registry.domain.tags import MOST_TAGS
from registry.errors import InvalidInputError
from registry.operations.evaluate import Measured, stored_results
from registry.operations.receive import MAX_FILES
from registry.operations.show import show
from registry.remote import values

router = APIRouter(prefix="/v1/adapters/{ns}/{name}/versions", tags=["versions"])

Reader = Annotated[Caller, Depends(Requires(Action.READ))]
Pusher = Annotated[Caller, Depends(Conditional(Action.PUSH, keyed=True))]


class File(RequestBody):
    path: str = Field(max_length=400, examples=["adapter_model.safetensors"])
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Score(RequestBody):
    metric: Metric = Field(examples=["acc"])
    value: float = Field(allow_inf_nan=False)
    task: Task | None = None
    suite: Suite | None = None
    split: Split | None = None
    filter: Filter | None = None
    stderr: float | None = Field(None, ge=0, allow_inf_nan=False)
    n: int | None = Field(None, ge=1, lt=1 << 53)
    higher_is_better: bool | None = None

    def measured(self) -> Measured:
        return Measured((values.read_evaluation(self.model_dump()),))


class Results(RequestBody):
    """A file of scores as an evaluation harness writes it, sent as a blob: read here, and kept beside what was read."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    name: Source = Field("results.json", min_length=1, description="What the scores say they are from.")


class NewVersion(RequestBody):
    """The blobs must be ones that the caller sent, or may read."""

    files: list[File] = Field(min_length=1, max_length=MAX_FILES)
    base: str | None = Field(None, max_length=200, description="The base model, if the config is wrong or silent.")
    aliases: list[str] = Field([], max_length=20)
    tags: dict[str, str] = Field({}, json_schema_extra={"maxProperties": MOST_TAGS})
    note: Note | None = None
    evaluations: list[Score] = Field([], max_length=1000)
    results: list[Results] = Field([], max_length=50)
    parents: list[str] = Field([], max_length=100, description="References, with *WEIGHT behind if it matters.")
    parent_kind: str = Field("continued-from", max_length=60)
    allow: list[str] = Field([], max_length=50, description="Rules whose errors are accepted, on record.")


@router.post("", summary="Make a version of blobs that were sent", status_code=201)
def publish(
    request: Request,
    response: Response,
    caller: Pusher,
    ns: Namespace,
    name: Name,
    wanted: NewVersion,
    idempotency_key: Key = None,
) -> dict[str, Any]:
    """Described and checked as a push of the same files from a directory. The same content again is the same version (200)."""
    adapter = AdapterName(ns, name)
    if wanted.aliases:
        caller.require(Action.TAG, adapter)
    parents = [(str(caller.reference(text)), weight) for text, weight in map(parse_parent, wanted.parents)]
    files = {file.path: Digest(file.digest) for file in wanted.files}
    if len(files) < len(wanted.files):
        raise InvalidInputError("two files have the same path", code="duplicate-path")
    receiver_for(caller, request).require_usable(list(files.values()))
    measured = _measured(request, caller, wanted.evaluations, wanted.results)
    finish_uploads_if_possible(adapter, request.app.state.hub)

    def made(caller: Caller) -> dict[str, Any]:
        published = caller.registry.receive(
            files,
            name=str(adapter),
            base=wanted.base,
            alias=wanted.aliases,
            tags=wanted.tags,
            evaluations=measured,
            note=wanted.note,
            parents=parents,
            parent_kind=wanted.parent_kind,
            allow=wanted.allow,
        )
        findings = [finding.document() for finding in published.findings]
        return {**changed(caller, published.version), "created": published.created, "findings": findings}

    once: Once = request.app.state.once
    answer = once.done(caller, idempotency_key, same_request(request, wanted), made)
    response.status_code = 201 if answer["created"] else 200
    return answer


@router.get("/{number}/evaluations", summary="Its scores, in the order in which they were added")
def evaluations(caller: Reader, ns: Namespace, name: Name, number: Number) -> dict[str, Any]:
    found = caller.registry.evaluations(f"{ns}/{name}@{number}")
    return {"items": [evaluation.document() for evaluation in found]}


class Scores(RequestBody):
    """Stated, or in files; together at least one."""

    evaluations: list[Score] = Field([], max_length=1000)
    results: list[Results] = Field([], max_length=50)


@router.post("/{number}/evaluations", summary="Add scores")
def add_evaluations(
    request: Request,
    caller: Pusher,
    ns: Namespace,
    name: Name,
    number: Number,
    wanted: Scores,
    idempotency_key: Key = None,
) -> dict[str, Any]:
    measured = _measured(request, caller, wanted.evaluations, wanted.results)
    if not measured:
        raise InvalidInputError("no scores and no results files were given", code="no-score")

    def added(caller: Caller) -> dict[str, Any]:
        _, count = caller.registry.add_evaluations(f"{ns}/{name}@{number}", *measured)
        return {"added": count}

    once: Once = request.app.state.once
    return once.done(caller, idempotency_key, same_request(request, wanted), added)


@router.get("/{number}/lineage", summary="What it was made from, and what was made from it")
def lineage(caller: Reader, ns: Namespace, name: Name, number: Number) -> dict[str, Any]:
    """A parent that the caller may not read is there by its digest alone; such a child is not. Children are named, of versions the
    newest first, up to a thousand: `GET /v1/adapters?parent=` turns the pages."""
    exactly = Reference(AdapterName(ns, name), number=number)
    details = show(exactly, blobs=caller.registry.blobs, catalog=caller.registry.catalog, visible=caller.visible)
    return {
        "reference": details.version.reference,
        "parents": shown_parents(caller, [edge.document() for edge in details.manifest.lineage]),
        "children": [child.reference for child in details.children],
    }


def _measured(request: Request, caller: Caller, scores: list[Score], results: list[Results]) -> list[Measured]:
    """Raises NotFoundError for a results file that the caller neither sent nor may read, MalformedResultsError."""
    files = [(Digest(each.digest), each.name) for each in results]
    receiver_for(caller, request).require_usable([digest for digest, _ in files])
    stated = [score.measured() for score in scores]
    return stated + [stored_results(digest, name, caller.registry.blobs) for digest, name in files]
