"""Who the caller is, and what clients ask before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import JSONResponse, Response

from registry.api.callers import UnauthenticatedError
from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.models import stamp
from registry.api.hub_protocol.reading import paged
from registry.api.hub_protocol.repositories import find_repository, is_ours
from registry.domain.access import Action
from registry.errors import NotFoundError

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.api.hub_protocol.asked import Asked
    from registry.domain.version import Adapter

_PAGE = 1000
#: Bytes of a card's head that are looked at.
_MAX_HEAD = 64 << 10
#: Bytes of a card that anybody may have looked at.
_MAX_CARD = 1 << 20


def whoami(asked: Asked) -> Response:
    caller = asked.caller
    if caller.token is None and not caller.open:
        raise UnauthenticatedError("Invalid user token.")
    writes = caller.open or (caller.token is not None and caller.token.actions & {Action.PUSH, Action.ADMIN})
    names = namespaces(caller)
    document: dict[str, Any] = {
        "type": "user",
        "id": caller.token.id if caller.token else "local",
        "name": names[0],
        "fullname": caller.token.name if caller.token else "local",
        "email": None,
        "isPro": False,
        "orgs": [
            {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "write"} for name in names[1:]
        ],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": caller.token.name if caller.token else "local",
                "role": "write" if writes else "read",
            },
        },
    }
    return JSONResponse(document)


def namespaces(caller: Caller) -> list[str]:
    """Those a token is for; the first is where a name without one lands."""
    patterns = caller.token.patterns if caller.token else ()
    named = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns if pattern != "*")
    return list(named) or [caller.registry.namespace]


def auth_check(asked: Asked) -> Response:
    """That the repository can be read was seen to already."""
    if asked.params.get("kind") == "write":
        find_repository(asked.caller, asked.repository.shown, asked.services.histories, action=Action.PUSH)
    return JSONResponse({})


def validate_yaml(asked: Asked) -> Response:
    """The head of a model card: it must be a mapping of YAML, if there is one. Its words are the author's own."""
    content = text_of(asked.json(limit=_MAX_CARD), "content", default="")
    problem = _trouble_with(content)
    if problem is not None:
        return JSONResponse({"errors": [{"message": problem}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})


def _trouble_with(card: str) -> str | None:
    lines = card.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    end = next((at for at, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        return None
    head = "\n".join(lines[1:end])
    if len(head) > _MAX_HEAD:
        return f"the card's head is larger than {_MAX_HEAD:,} characters"
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(head, yaml.SafeLoader)):
            return "the card's head uses YAML aliases, which are not expanded"
        document = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return f"the card's head is no YAML: {' '.join(str(error).split())[:300]}"
    return None if document is None or isinstance(document, dict) else "the card's head is no YAML mapping"


def repositories(asked: Asked) -> Response:
    """``hf repos list``: what a namespace holds, of what the caller may see, and how large the newest versions are. Without a
    namespace that of the caller. Raises UnauthenticatedError, NotFoundError."""
    caller, namespace = asked.caller, asked.params.get("namespace")
    if caller.token is None and not caller.open:
        raise UnauthenticatedError("Invalid user token.")
    if namespace is None:
        namespace = namespaces(caller)[0]
    elif not is_ours(caller, f"{namespace}/"):
        raise NotFoundError(f"nothing is in a namespace {namespace!r:.120}", code="unknown-namespace")
    adapters = [
        each for each in caller.registry.catalog.adapters(namespace=namespace) if caller.may(Action.READ, each.name)
    ]
    page, link = paged(asked, adapters, _PAGE)
    rows = [row for adapter in page if (row := _stored(adapter, asked)) is not None]
    if len(page) == len(adapters):  # else nobody knows the whole
        whole = sum(row["storage"] for row in rows)
        rows = [{**row, "storagePercent": 100 * row["storage"] / whole if whole else 0} for row in rows]
    return JSONResponse(rows, headers={"Link": link} if link else None)


def _stored(adapter: Adapter, asked: Asked) -> dict[str, Any] | None:
    """None for one that went meanwhile."""
    try:
        newest = next(iter(asked.caller.registry.catalog.versions(adapter.name, limit=1)), None)
        at = newest.created_at if newest is not None else asked.services.histories.of(adapter.name).created_at
    except NotFoundError:
        return None
    return {
        "id": str(adapter.name),
        "type": "model",
        "updatedAt": stamp(at),
        "visibility": "private" if adapter.private else "public",
        "storage": newest.summary.bytes if newest is not None else 0,
    }


def pbase(asked: Asked) -> Response:
    """LoRAX asks its registry for a name and a version once, and keeps the answer: a version is one for ever."""
    revision = asked.repository.revision(asked.params["version"])
    name = asked.repository.name
    path = f"{name}/v{revision.number}"
    return JSONResponse(
        {
            "status": "completed",
            "adapterPath": path,
            "repository": f"{name}.v{revision.number}",
            "commit": revision.commit,
        }
    )
