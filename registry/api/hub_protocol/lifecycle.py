"""Repositories are made, hidden, renamed and removed; branches are aliases; tags are the server's, and the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.account import namespaces
from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.endings import finish_uploads
from registry.api.hub_protocol.errors import NoVersionError, RevisionMissingError, UnsupportedError
from registry.api.hub_protocol.repositories import find_repository
from registry.api.hub_protocol.revisions import USER_TAG
from registry.domain.access import Action
from registry.domain.names import MAIN, AdapterName, AliasName, Reference
from registry.domain.tags import checked_tags
from registry.errors import ConflictError, DeniedError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.repositories import Repository
    from registry.api.hub_protocol.revisions import Revision

_LIKE_VERSION = re.compile(r"v?[0-9]+", re.ASCII | re.IGNORECASE)
_LIKE_COMMIT = re.compile(r"[0-9a-f]{7,}", re.ASCII | re.IGNORECASE)


class ReservedNameError(DeniedError):
    default_code = "reserved-name"


def create(asked: Asked) -> Response:
    """Again is a conflict that tells the address, as clients with ``exist_ok`` want it."""
    document = asked.json()
    _require_model(document)
    name = _named(document, asked.caller)
    asked.caller.require(Action.PUSH, name)
    try:
        with asked.caller.registry.catalog.writing() as writer:
            created = writer.create_adapter(name, private=_private(document) or False)
    except ConflictError as error:  # a 409 says to clients that the repository is there
        raise ReservedNameError(error.message, code=error.code, hint=error.hint) from error
    known = asked.caller.registry.catalog.find_adapter(name)
    shown = str(known.name if known else name)
    answer = {"url": f"{asked.address}/{shown}", "name": shown, "id": shown}
    if not created:
        answer["error"] = f"there is a repository {shown} already"
    return JSONResponse(answer, 200 if created else 409)


def delete(asked: Asked) -> Response:
    """Some proxies take the body of a DELETE away: the query does as well."""
    document = asked.json() or dict(asked.request.query_params)
    _require_model(document)
    name = _named(document, asked.caller)
    find_repository(asked.caller, str(name), asked.services.histories, action=Action.DELETE)
    with asked.caller.registry.catalog.writing() as writer:
        writer.remove_adapter(name, "removed by a client of the Hub's protocol")
    return JSONResponse({})


def move(asked: Asked) -> Response:
    """Out of a name one may delete, into a name one may push to. What was uploaded goes along."""
    document = asked.json()
    _require_model(document)
    before, after = (AdapterName.parse(text_of(document, key)) for key in ("fromRepo", "toRepo"))
    known = find_repository(asked.caller, str(before), asked.services.histories, action=Action.DELETE)
    if before.key == after.key:
        raise ConflictError(
            f"{after} is the name that {known.name} has: names that differ only in case are the same name",
            code="same-name",
            hint="its spelling stays what it was made with; choose another name",
        )
    asked.caller.require(Action.PUSH, after)
    finish_uploads(known.name, asked.services)
    with asked.caller.registry.catalog.writing() as writer:
        writer.rename_adapter(before, after)
    return JSONResponse({"url": f"{asked.address}/{after}", "name": str(after), "id": str(after)})


def settings(asked: Asked) -> Response:
    """Whoever may push may hide, and whoever may delete may show, as over ``PUT /v1/adapters/NS/NAME``. There are no gates."""
    document = asked.json()
    gated = document.get("gated")
    if gated not in (None, False, "false"):
        raise UnsupportedError(
            "a repository cannot be gated here", hint="make it private, and give tokens to its readers"
        )
    private = _private(document)
    name = asked.repository.name
    if private is not None:
        with asked.caller.registry.catalog.writing() as writer:
            asked.caller.require_visibility(name, private=private)
            writer.set_private(name, private=private)
    known = asked.caller.registry.catalog.find_adapter(name)
    return JSONResponse({"private": known is not None and known.private, "gated": False})


def create_branch(asked: Asked) -> Response:
    """An alias, at the version of ``startingPoint``."""
    repository, branch = asked.repository, asked.params["branch"]
    finish_uploads(repository.name, asked.services)
    start = text_of(asked.json(), "startingPoint", default=MAIN)
    if branch == MAIN or branch.lower() in {name.lower() for name in repository.history.aliases}:
        raise ConflictError(f"{repository.shown} has a branch {branch} already", code="branch-exists")
    alias = AliasName(branch)
    if (taken := _alike(branch, repository.history.user_tags)) is not None:
        raise ReservedNameError(
            f"{taken} is a tag of {repository.shown}, and tags do not move",
            hint="choose another name for the branch, or delete the tag first",
        )
    number = _number(repository.revision(start), start, repository)
    with asked.caller.registry.catalog.writing() as writer:
        writer.move_alias(repository.name, alias, number, expected=None)
    return JSONResponse({}, 201)


def delete_branch(asked: Asked) -> Response:
    repository, branch = asked.repository, asked.params["branch"]
    if branch == MAIN:
        raise ReservedNameError("main cannot be removed: it is the newest version")
    if branch.lower() not in {name.lower() for name in repository.history.aliases}:
        raise RevisionMissingError(repository.shown, branch)
    asked.caller.registry.remove_alias(str(repository.name), branch)
    return Response(status_code=204)


def create_tag(asked: Asked) -> Response:
    """A tag of one's own, which does not move, see :mod:`~registry.api.hub_protocol.revisions`."""
    repository, tag = asked.repository, text_of(asked.json(), "tag")
    finish_uploads(repository.name, asked.services)
    revision = repository.revision(asked.params["revision"])
    history = repository.history
    if history.tagged(tag) is not None or tag in history.user_tags:
        raise ConflictError(f"{repository.shown} has a tag {tag} already, and tags do not move", code="tag-exists")
    if _LIKE_VERSION.fullmatch(tag) or _LIKE_COMMIT.fullmatch(tag) or tag == MAIN:
        raise ReservedNameError(
            f"{tag!r:.80} is a name that the server gives",
            hint="choose another; versions have their tags v1, v2, … already",
        )
    if (taken := _alike(tag, history.aliases)) is not None:
        raise ReservedNameError(
            f"{taken} is an alias of {repository.name}, which moves, and tags do not move",
            hint="choose another name for the tag",
        )
    wanted = checked_tags({USER_TAG + tag: _stored(revision, asked).commit})
    number = _number(revision, asked.params["revision"], repository)
    with asked.caller.registry.catalog.writing() as writer:
        writer.set_tags(writer.resolve(Reference(repository.name, number=number)), wanted)
    return JSONResponse({}, 201)


def delete_tag(asked: Asked) -> Response:
    repository, tag = asked.repository, asked.params["revision"]
    history = repository.history
    if tag in history.user_tags:
        owner = next(version for version in history.versions if USER_TAG + tag in version.tags)
        asked.caller.registry.remove_tags(owner.reference, USER_TAG + tag)
        return Response(status_code=204)
    if history.tagged(tag) is not None:
        raise ReservedNameError(
            f"{tag} is version {tag.lstrip('v')} of {repository.name}, and no tag of a user's",
            hint="a version is taken back by adapters yank, or adapters delete",
        )
    raise RevisionMissingError(repository.shown, tag)


def _number(revision: Revision, asked_for: str, repository: Repository) -> int:
    """Of the version that it holds. Raises NoVersionError."""
    if revision.number == 0:
        raise NoVersionError(repository.shown, asked_for)
    return revision.number


def _alike(name: str, names: Iterable[str]) -> str | None:
    """The one that differs in its spelling at most. It is no conflict, which clients take for a name that is there already."""
    return next((each for each in names if each.lower() == name.lower()), None)


def _stored(revision: Revision, asked: Asked) -> Revision:
    """The commit behind one that is served with another base."""
    history = asked.repository.history
    if history.with_id(revision.commit) is None:
        raise NotFoundError(f"there is no commit {revision.commit}")
    made = history.of_number(revision.number)
    return made if made is not None and history.served(made).commit == revision.commit else revision


def _named(document: Mapping[str, Any], caller: Caller) -> AdapterName:
    name, organization = text_of(document, "name"), document.get("organization")
    if organization is None and "/" in name:
        return AdapterName.parse(name)
    if organization is not None and not isinstance(organization, str):
        raise InvalidInputError("organization is no text", code="invalid-body")
    return AdapterName.parse(f"{organization or namespaces(caller)[0]}/{name}")


def _require_model(document: Mapping[str, Any]) -> None:
    if document.get("type") not in (None, "model"):
        raise UnsupportedError(f"there are no repositories of type {document.get('type')!r:.40} here, only models")


def _private(document: Mapping[str, Any]) -> bool | None:
    """Clients before 1.0 send ``private``, those since ``visibility``. None where neither is said."""
    visibility = document.get("visibility")
    if visibility in ("private", "public"):
        return bool(visibility == "private")
    private = document.get("private")
    return private if isinstance(private, bool) else None
