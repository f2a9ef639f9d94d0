"""``list_models``: the registry's own search, asked in the Hub's words.

The catalog knows bases, methods, tasks and tags of versions. What only a README says (its license, its languages) is looked for in
the READMEs of what else fits, so many for one answer; a page may then have fewer rows than were asked for and still a next one. A
repository without a version is listed with its namespace alone, behind the others.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from registry.api.cursors import cursor_behind, position_at
from registry.api.hub_protocol.cards import BASE
from registry.api.hub_protocol.models import PIPELINES, model_document
from registry.api.hub_protocol.repositories import Repository
from registry.domain.access import Action
from registry.domain.manifest import MERGED
from registry.domain.names import MAIN, Namespace
from registry.domain.query import VersionQuery
from registry.errors import InvalidInputError, InvalidNameError, NotFoundError
from registry.operations.find import canonical_base
from registry.operations.manifests import manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.datastructures import QueryParams

    from registry.api.hub_protocol.asked import Asked
    from registry.domain.version import Adapter, Version

_PAGE = 1000
_DEFAULT_PAGE = 100
#: Repositories whose README is looked into for one answer.
_LOOKED_THROUGH = 200
#: What may stand between :data:`BASE` and a base; an adapter, or a checkpoint that some were merged into, is none of the others.
_RELATIONS = ("adapter", "merge", "finetune", "quantized")
_SORTS = {"lastModified": "created", "last_modified": "created", "createdAt": "created", "created_at": "created"}
#: Tags that every adapter has.
_OF_ALL = frozenset(["peft", "safetensors", "adapter"])
#: What the Hub knows of its models, and nothing here is: gated, run by somebody, said to be for an application.
_OF_NONE = ("inference", "inference_provider", "apps")
_BOUND = re.compile(r"(min|max):([0-9]+(?:\.[0-9]+)?)([KMBT]?)", re.ASCII)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class _Question:
    """``words`` are what the catalog does not know: tags of a README, or of a version. ``sizes`` are the fewest and the most
    parameters."""

    query: VersionQuery
    words: frozenset[str] = frozenset()
    sizes: tuple[float, float] | None = None
    takes_empty: bool = False  #: whether a repository without a version may fit
    adapters_alone: bool = False  #: and no checkpoints that adapters were merged into


def list_models(asked: Asked) -> Response:
    query = asked.request.query_params
    question = _question(query)
    if question is None:
        return JSONResponse([])
    wanted, most = question.query, question.query.limit
    if question.words or question.sizes:
        wanted = replace(wanted, limit=_LOOKED_THROUGH)
    if cursor := query.get("cursor"):
        wanted = replace(wanted, after=position_at(cursor, wanted))
    found = asked.caller.registry.catalog.search(wanted.seen_by(asked.caller.visible))
    rows: list[dict[str, Any]] = []
    looked_at = 0
    for version in found:
        if len(rows) == most:
            break
        looked_at += 1
        row = _row(version, question, asked)
        if row is not None:
            rows.append(row)
    is_last = looked_at == len(found) < wanted.limit
    if is_last and question.takes_empty:
        rows += islice(_without_version(question, asked), _PAGE)
    found = found[:looked_at]
    headers = {}
    if not is_last:
        following = [(key, value) for key, value in query.multi_items() if key != "cursor"]
        address = f"{asked.address}/api/models?{urlencode([*following, ('cursor', cursor_behind(wanted, found[-1]))])}"
        headers["Link"] = f'<{address}>; rel="next"'
    return JSONResponse(rows, headers=headers)


def _row(version: Version, question: _Question, asked: Asked) -> dict[str, Any] | None:
    """None for what does not fit, or is gone meanwhile."""
    if question.adapters_alone and version.summary.peft_type == MERGED:
        return None
    if question.sizes is not None:
        fewest, most = question.sizes
        if not fewest <= manifest_of(version.digest, asked.caller.registry.blobs).parameters <= most:
            return None
    adapter = asked.caller.registry.catalog.find_adapter(version.adapter)
    if adapter is None:
        return None
    document = _document(adapter, asked)
    return document if question.words <= {*document["tags"], document["library_name"], *version.tags} else None


def _without_version(question: _Question, asked: Asked) -> Iterator[dict[str, Any]]:
    """Those of the namespace that was asked for that hold no adapter yet. No index knows them, so each name is looked at."""
    catalog = asked.caller.registry.catalog
    text = (question.query.text or "").lower()
    for adapter in catalog.adapters(namespace=question.query.namespace):
        if text in adapter.name.key and asked.caller.may(Action.READ, adapter.name):
            try:
                document = None if catalog.versions(adapter.name, limit=1) else _document(adapter, asked)
            except NotFoundError:  # it went meanwhile
                continue
            if document is not None and question.words <= set(document["tags"]):
                yield document


def _document(adapter: Adapter, asked: Asked) -> dict[str, Any]:
    repository = Repository(adapter, str(adapter.name), asked.services.histories)
    document = model_document(repository, repository.revision(MAIN), asked.services)
    if asked.flag("full"):
        document["siblings"] = [{"rfilename": path} for path in repository.revision(MAIN).tree]
    return document


def _question(query: QueryParams) -> _Question | None:
    """None for what nothing here can fit. Raises InvalidInputError."""
    if query.get("gated", "").lower() in ("true", "1") or any(query.get(key) for key in _OF_NONE):
        return None
    limit = query.get("limit", "")
    size = min(_PAGE, max(1, int(limit))) if limit.isascii() and limit.isdecimal() and len(limit) < 9 else _DEFAULT_PAGE
    wanted = VersionQuery(limit=size, sort=_SORTS.get(query.get("sort", "")))
    words: set[str] = set()
    relations: set[str] = set()
    filters = [word for text in query.getlist("filter") for word in text.split(",") if word]
    filters += [word for key in ("pipeline_tag", "library") for word in query.getlist(key)]
    for word in filters:
        if word in _OF_ALL:
            continue
        if word.startswith(BASE):
            name = word.removeprefix(BASE)
            relation, colon, rest = name.partition(":")
            if colon and relation in _RELATIONS:
                relations.add(relation)
                name = rest
            wanted = replace(wanted, base=canonical_base(name))
        elif task := next((task for task, pipeline in PIPELINES.items() if pipeline == word), None):
            wanted = replace(wanted, task_type=task)
        elif word in ("lora", "ia3", "loha", "lokr", "adalora"):
            wanted = replace(wanted, peft_type=word.upper())
        elif "=" in word:
            key, _, value = word.partition("=")
            wanted = replace(wanted, tags=(*wanted.tags, (key, value)))
        else:
            words.add(word)
    if relations - {"adapter", "merge"} or len(relations) > 1:
        return None
    if relations == {"merge"}:
        if wanted.peft_type is not None:
            return None
        wanted = replace(wanted, peft_type=MERGED)
    if text := query.get("search"):
        if not text.isprintable():
            return None
        wanted = replace(wanted, text=text)
    if author := query.get("author"):
        try:
            wanted = replace(wanted, namespace=str(Namespace(author)))
        except InvalidNameError:
            return None
    sizes = _sizes(query["num_parameters"]) if query.get("num_parameters") else None
    takes_empty = wanted.namespace is not None and words >= set(filters) and sizes is None
    return _Question(wanted, frozenset(words), sizes, takes_empty, relations == {"adapter"})


def _sizes(text: str) -> tuple[float, float]:
    """``min:6B,max:128B``, either or both. Raises InvalidInputError."""
    found = {"min": 0.0, "max": math.inf}
    for part in text.split(","):
        match = _BOUND.fullmatch(part.strip())
        if match is None:
            raise InvalidInputError(
                f"num_parameters is {text!r:.80}, expected such as min:6B,max:128B", code="invalid-query"
            )
        found[match[1]] = float(match[2]) * _UNITS[match[3]]
    return found["min"], found["max"]
