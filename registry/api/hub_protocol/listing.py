"""``list_models``: the registry's own search, asked in the Hub's words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from registry.api.cursors import cursor_behind, position_at
from registry.api.hub_protocol.models import PIPELINES, model_document
from registry.api.hub_protocol.repositories import Repository
from registry.api.hub_protocol.revisions import MAIN
from registry.domain.names import Namespace
from registry.domain.query import VersionQuery
from registry.errors import InvalidNameError
from registry.operations.find import canonical_base

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from registry.api.hub_protocol.asked import Asked

_PAGE = 1000
_DEFAULT_PAGE = 100
_BASE = "base_model:"
_RELATIONS = ("adapter", "merge", "finetune", "quantized")
_SORTS = {"lastModified": "created", "last_modified": "created", "createdAt": "created", "created_at": "created"}
#: Tags that every adapter has.
_OF_ALL = frozenset(["peft", "safetensors", "adapter"])


def list_models(asked: Asked) -> Response:
    query = asked.request.query_params
    wanted = _query(query)
    if wanted is None:
        return JSONResponse([])
    if cursor := query.get("cursor"):
        wanted = replace(wanted, after=position_at(cursor, wanted, asked.caller))
    found = asked.caller.registry.catalog.search(wanted.seen_by(asked.caller.visible))
    rows = []
    for version in found:
        adapter = asked.caller.registry.catalog.find_adapter(version.adapter)
        if adapter is None:
            continue
        repository = Repository(adapter, str(adapter.name), asked.services.histories)
        document = model_document(repository, repository.revision(MAIN), asked.services)
        if asked.flag("full"):
            document["siblings"] = [{"rfilename": path} for path in repository.revision(MAIN).tree]
        rows.append(document)
    headers = {}
    if len(found) == wanted.limit:
        following = [(key, value) for key, value in query.multi_items() if key != "cursor"]
        address = f"{asked.address}/api/models?{urlencode([*following, ('cursor', cursor_behind(wanted, found[-1]))])}"
        headers["Link"] = f'<{address}>; rel="next"'
    return JSONResponse(rows, headers=headers)


def _query(query: QueryParams) -> VersionQuery | None:
    """None for what nothing here can fit. Words it does not know are tags of versions."""
    limit = query.get("limit", "")
    size = min(_PAGE, max(1, int(limit))) if limit.isascii() and limit.isdecimal() and len(limit) < 9 else _DEFAULT_PAGE
    wanted = VersionQuery(limit=size, sort=_SORTS.get(query.get("sort", "")))
    filters = [word for text in query.getlist("filter") for word in text.split(",") if word]
    filters += [word for key in ("pipeline_tag", "library") for word in query.getlist(key)]
    for word in filters:
        if word in _OF_ALL:
            continue
        if word.startswith(_BASE):
            name = word.removeprefix(_BASE)
            relation, colon, rest = name.partition(":")
            wanted = replace(wanted, base=canonical_base(rest if colon and relation in _RELATIONS else name))
        elif task := next((task for task, pipeline in PIPELINES.items() if pipeline == word), None):
            wanted = replace(wanted, task_type=task)
        elif word in ("lora", "ia3", "loha", "lokr", "adalora"):
            wanted = replace(wanted, peft_type=word.upper())
        else:
            key, equals, value = word.partition("=")
            wanted = replace(wanted, tags=(*wanted.tags, (key, value if equals else None)))
    if text := query.get("search"):
        if not text.isprintable():
            return None
        wanted = replace(wanted, text=text)
    if author := query.get("author"):
        try:
            wanted = replace(wanted, namespace=str(Namespace(author)))
        except InvalidNameError:
            return None
    return wanted
