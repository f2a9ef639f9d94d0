"""Who the caller is, and what clients ask before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import JSONResponse, Response

from registry.api.callers import UnauthenticatedError
from registry.api.hub_protocol.asked import text_of
from registry.domain.access import Action
from registry.errors import DeniedError

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.api.hub_protocol.asked import Asked

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
    if asked.params.get("kind") == "write" and not asked.caller.may(Action.PUSH, asked.repository.name):
        raise DeniedError(f"this token may not push to {asked.repository.name}", code="forbidden")
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
