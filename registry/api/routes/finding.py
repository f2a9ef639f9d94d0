"""Questions across adapters: which is best, how do some compare, does one fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from registry.api.addresses import public_url
from registry.api.callers import Caller, Requires
from registry.api.documents import Documents
from registry.api.routes.adapters import Conditions
from registry.api.texts import RequestBody
from registry.checks.profile import find_profile
from registry.domain.access import Action
from registry.domain.query import OPERATORS, SORTS, MetricName
from registry.errors import InvalidInputError, NotFoundError, RejectedError
from registry.operations.bases import base_called
from registry.operations.check import adapter_stored, check, under_alias
from registry.operations.resolve import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.domain.query import VersionQuery
    from registry.domain.version import Version

router = APIRouter(prefix="/v1", tags=["look-ups"])

Reader = Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))]

#: So many versions are looked at, the best first, for one that an engine serves.
_TRIED, _PAGE = 1000, 100
#: What makes a condition of a metric.
_SIGNS = frozenset("".join(OPERATORS))


class Best(Conditions):
    by: str | None = Field(None, max_length=400, description="The metric, such as acc or arc_easy/acc.")
    metric: list[str] = Field(
        [],
        description="Conditions such as acc>=0.8 or arc_easy/acc>=0.8; a name alone is the metric, as in `by`.",
        max_length=50,
    )
    engine: str | None = Field(None, max_length=60, description="It must be able to serve it: vllm, or vllm==0.33.0.")
    all_versions: bool = Field(default=False, description="Also those that are yanked.")

    def best_first(self, caller: Caller) -> VersionQuery:
        """Every version that fits, ordered by the metric. Raises InvalidInputError, InvalidNameError, NotFoundError."""
        conditions = [text for text in self.metric if any(sign in text for sign in _SIGNS)]
        names = [text for text in self.metric if text not in conditions]
        metrics = {str(MetricName.parse(text)) for text in (*names, *([self.by] if self.by is not None else ()))}
        if len(metrics) != 1 or not metrics.isdisjoint(SORTS):
            raise InvalidInputError(
                "say the one metric by which it is to be the best"
                + (f", not {' and '.join(sorted(metrics))}" if metrics else ""),
                code="no-metric",
                hint="?by=acc",
            )
        query = self.model_copy(update={"metric": conditions}).query(caller, sort=metrics.pop(), limit=_PAGE)
        return replace(query, all_versions=True)


@router.get("/best", summary="The best version by a metric, among those that fit")
def best(request: Request, caller: Reader, wanted: Annotated[Best, Query()]) -> dict[str, Any]:
    """Of the conditions of a search, with ``by`` (or ``metric``, without a comparison) the metric, among all versions that are not
    yanked, or those that ``alias`` points at. Of equals the one that was stored last."""
    query = wanted.best_first(caller)
    if wanted.engine is not None:
        find_profile(wanted.engine)
    documents: Documents = request.app.state.documents
    documents.catch_up()
    yanked_too = wanted.all_versions or wanted.alias is not None
    for version in _best_first(caller, query, yanked_too=yanked_too):
        fitting = documents.answer(
            caller.registry, version.adapter, Wanted(number=version.number, engine=wanted.engine)
        )
        if isinstance(fitting, RejectedError):
            continue
        score = version.score.document() if version.score else None
        return {**json.loads(fitting.at(public_url(request))), "score": score}
    raise NotFoundError(f"no version that fits has a score {query.sort}", code="none-fits")


def _best_first(caller: Caller, query: VersionQuery, *, yanked_too: bool) -> Iterator[Version]:
    tried = 0
    while tried < _TRIED:
        page = caller.registry.catalog.search(query)
        for version in page:
            if version.yanked is None or yanked_too:
                tried += 1
                yield version
        if len(page) < query.limit:
            return
        query = query.behind(page[-1])


@router.get("/compare", summary="The scores of several versions side by side")
def compare(caller: Reader, ref: Annotated[list[str], Query(min_length=1, max_length=50)]) -> dict[str, Any]:
    return caller.registry.compare(*(str(caller.reference(text)) for text in ref)).document()


class Check(RequestBody):
    reference: str = Field(max_length=300, examples=["team/x:production"])
    base: str | None = Field(None, max_length=200, description="A base model by its name.")
    engine: str | None = Field(None, max_length=60)
    allow: list[str] = Field([], max_length=50)


@router.post("/check", summary="Does a version fit a base, and will an engine serve it?")
def run_check(caller: Reader, wanted: Check) -> dict[str, Any]:
    """The answer of ``adapters check --json``, from what is stored."""
    if wanted.base is None and wanted.engine is None:
        raise InvalidInputError("give a base, an engine, or both: what shall it fit?", code="nothing-to-check")
    registry, reference = caller.registry, caller.reference(wanted.reference)
    shelf = registry.shelf()
    profile = find_profile(wanted.engine) if wanted.engine is not None else None
    adapter = under_alias(adapter_stored(reference, blobs=registry.blobs, catalog=registry.catalog), shelf)
    base = base_called(wanted.base, shelf) if wanted.base is not None else None
    return check(adapter, base, profile, allow=wanted.allow).document()
