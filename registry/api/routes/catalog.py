"""The catalog for the command line and the Python API elsewhere: questions, and transactions of several steps.

Who may ask or do what is decided here step by step, by the same :class:`Caller` as everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel, Field, TypeAdapter

from registry.api.callers import Caller, Requires, UnauthenticatedError
from registry.api.once import Once
from registry.api.receiving import Receiver
from registry.api.routes.events import may_see, shown_facts
from registry.catalog.protocol import ANYTHING, CatalogWriter
from registry.domain.access import Action, Token
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.tags import checked_tags
from registry.domain.version import AuditEntry, Version
from registry.errors import ChangedMeanwhileError, ConflictError, DeniedError, InvalidInputError, NotFoundError
from registry.remote import values
from registry.remote.asks import ANSWERS, RESULTS

router = APIRouter(prefix="/v1", tags=["remote command line"])

Arguments = Mapping[str, Any]
_NEVER_NONE = frozenset(["alias", "digest", "name", "reference", "token_id", "version"])
_TEXTS = _NEVER_NONE | {
    "adapter",
    "canonical",
    "namespace",
    "note",
    "raw",
    "revision",
    "fingerprint",
    "weights_fingerprint",
}
_LONGEST_TEXT = 10_000
_SCORES = TypeAdapter(Evaluation)
_MOST_STEPS = 500
_MOST_SCORES = 10_000
_MOST_ROWS = 1000
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@router.post("/catalog/{question}", summary="Ask the catalog")
def ask(
    caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))], question: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """The questions are those of the catalog's protocol; answers hold only what the caller may read."""
    if question not in QUESTIONS:
        raise NotFoundError(f"there is no question {question!r:.60}", code="unknown-question")
    _require_texts(arguments)
    try:
        answer = QUESTIONS[question](caller, arguments)
    except _UNREADABLE as error:
        raise InvalidInputError(f"{question}: the arguments cannot be read: {error!r:.200}") from error
    return {"answer": ANSWERS[question][0](answer)}


def _of_version(caller: Caller, reference: Reference) -> Version:
    """Raises NotFoundError; a digest means a version of an adapter that the caller may read."""
    if reference.adapter is not None:
        caller.require(Action.READ, reference.adapter)
    found = caller.own_view_of(caller.registry.catalog.resolve(reference))
    if found is None:
        raise NotFoundError(f"no version has digest {reference.digest_start}", code="unknown-version")
    return found


def _readable(caller: Caller, arguments: Arguments) -> AdapterName:
    adapter = AdapterName.parse(arguments["adapter"])
    caller.require(Action.READ, adapter)
    return adapter


def _search(caller: Caller, arguments: Arguments) -> list[Version]:
    query = values.read_query(arguments["query"]).seen_by(caller.visible)
    if not 1 <= query.limit <= _MOST_ROWS:
        raise InvalidInputError(f"a page has 1 to {_MOST_ROWS} rows")
    if query.after is not None:
        _of_version(caller, Reference.parse(query.after))
    return caller.registry.catalog.search(query)


def _audit(caller: Caller, arguments: Arguments) -> list[AuditEntry]:
    limit = _rows(arguments)
    if arguments.get("adapter") is None:
        caller.require(Action.ADMIN)
        return caller.registry.catalog.audit(limit=limit)
    entries = caller.registry.catalog.audit(_readable(caller, arguments), limit=limit)
    return [replace(entry, body=shown_facts(caller, entry)) for entry in entries if may_see(caller, entry)]


def _rows(arguments: Arguments) -> int:
    limit = arguments.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidInputError(f"limit is {limit!r:.40}, expected a whole number from 1")
    return min(limit or _MOST_ROWS, _MOST_ROWS)


def _as_admin(answer: Callable[[Caller, Arguments], Any]) -> Callable[[Caller, Arguments], Any]:
    def guarded(caller: Caller, arguments: Arguments) -> Any:
        caller.require(Action.ADMIN)
        return answer(caller, arguments)

    return guarded


def _find_adapter(caller: Caller, arguments: Arguments) -> Any:
    adapter = AdapterName.parse(arguments["adapter"])
    return caller.registry.catalog.find_adapter(adapter) if caller.may(Action.READ, adapter) else None


def _adapters(caller: Caller, arguments: Arguments) -> Any:
    known = caller.registry.catalog.adapters(namespace=arguments.get("namespace"))
    return [adapter for adapter in known if caller.may(Action.READ, adapter.name)]


QUESTIONS: Mapping[str, Callable[[Caller, Arguments], Any]] = {
    "resolve": lambda caller, given: _of_version(caller, Reference.parse(given["reference"])),
    "find_version": lambda caller, given: caller.registry.catalog.find_version(
        _readable_or_new(caller, given), Digest(given["digest"])
    ),
    "versions": lambda caller, given: caller.registry.catalog.versions(
        _readable(caller, given), below=given.get("below"), limit=_rows(given)
    ),
    "search": _search,
    "aliases": lambda caller, given: caller.registry.catalog.aliases(_readable(caller, given)),
    "alias_history": lambda caller, given: caller.registry.catalog.alias_history(
        _readable(caller, given), AliasName(given["alias"])
    ),
    "evaluations": lambda caller, given: caller.registry.catalog.evaluations(
        _of_version(caller, Reference.parse(given["version"]))
    ),
    "audit": _audit,
    "events": _as_admin(lambda caller, given: caller.registry.catalog.events(int(given["after"]), limit=_rows(given))),
    "references": _as_admin(lambda caller, _given: caller.registry.catalog.references()),
    "owners": _as_admin(lambda caller, given: caller.registry.catalog.owners(Digest(given["digest"]))),
    "holders": _as_admin(lambda caller, given: caller.registry.catalog.holders(Digest(given["digest"]))),
    "find_base": lambda caller, given: caller.registry.catalog.find_base(given["name"], given.get("revision")),
    "bases": lambda caller, _given: caller.registry.catalog.bases(),
    "base_aliases": lambda caller, _given: caller.registry.catalog.base_aliases(),
    "find_adapter": _find_adapter,
    "adapters": _adapters,
    "has_namespace": _as_admin(lambda caller, given: caller.registry.catalog.has_namespace(given["namespace"])),
    "commits": lambda caller, given: caller.registry.catalog.commits(_readable(caller, given)),
    "find_token": _as_admin(lambda caller, given: caller.registry.catalog.find_token(given["token_id"])),
    "tokens": _as_admin(lambda caller, _given: caller.registry.catalog.tokens()),
}


def _readable_or_new(caller: Caller, arguments: Arguments) -> AdapterName:
    """Whoever may push may ask whether what they have is there already."""
    adapter = AdapterName.parse(arguments["adapter"])
    if not caller.may(Action.READ, adapter):
        caller.require(Action.PUSH, adapter)
    return adapter


@dataclass(frozen=True)
class Step:
    """``action`` is what the caller must be allowed for every adapter that the step names."""

    action: Action
    do: Callable[[CatalogWriter, Arguments, Receiver], Any]


def _adapters_named(given: Arguments) -> list[AdapterName]:
    """All that a step names, whichever of them it is about."""
    names = [AdapterName.parse(given["adapter"])] if "adapter" in given else []
    references = [Reference.parse(given[key]) for key in ("version", "reference") if key in given]
    return names + [reference.adapter for reference in references if reference.adapter is not None]


def _version(writer: CatalogWriter, given: Arguments, action: Action, receiver: Receiver) -> Version:
    """Raises NotFoundError; by a digest it is found only where the caller may do this."""
    return _theirs(writer, Reference.parse(given["version"]), action, receiver)


def _resolve(writer: CatalogWriter, given: Arguments, receiver: Receiver) -> Version:
    return _theirs(writer, Reference.parse(given["reference"]), Action.READ, receiver)


def _theirs(writer: CatalogWriter, reference: Reference, action: Action, receiver: Receiver) -> Version:
    found = writer.resolve(reference)
    if reference.adapter is None and not receiver.caller.may(Action.READ, found.adapter):
        raise NotFoundError(f"no version has digest {reference.digest_start}", code="unknown-version")
    receiver.caller.require(action, found.adapter)
    return found


def _move_alias(writer: CatalogWriter, given: Arguments, _receiver: Receiver) -> Any:
    expected = given.get("expected", ANYTHING)
    adapter, alias = AdapterName.parse(given["adapter"]), AliasName(given["alias"])
    numbers = [number for number in (given["to"], expected) if number is not None and number is not ANYTHING]
    if any(type(number) is not int for number in numbers):
        raise InvalidInputError("move_alias: a version is a whole number")
    return writer.move_alias(adapter, alias, given["to"], expected=expected, gate=_gate(given.get("gate")))


def _gate(facts: Any) -> Mapping[str, object] | None:
    """As :meth:`registry.domain.gate.Outcome.facts` gives them. Raises InvalidInputError for anything else."""
    if facts is None:
        return None
    against, conditions = facts["against"], facts["conditions"]
    if against is not None:
        against = str(Reference.parse(_text(against, 300)))
    if not all(isinstance(said, list) for said in conditions.values()):
        raise InvalidInputError("move_alias: that is not what a gate found")
    read = {_text(condition, 300): [_text(each, 500) for each in said] for condition, said in conditions.items()}
    if len(facts) != 2 or len(read) > 200 or sum(map(len, read.values())) > 1000:
        raise InvalidInputError("move_alias: that is not what a gate found")
    return {"against": against, "conditions": read}


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidInputError(f"{value!r:.60} is no text of at most {longest:,} characters")
    return value


def _require_texts(given: Arguments) -> None:
    """Whatever the question or step: these are texts, wherever they are given."""
    for key in _TEXTS & given.keys():
        if given[key] is not None or key in _NEVER_NONE:
            _text(given[key], _LONGEST_TEXT)


def _reason(given: Arguments) -> str:
    return _text(given["reason"], 1000)


def _add_evaluations(writer: CatalogWriter, given: Arguments, receiver: Receiver) -> int:
    if len(given["evaluations"]) > _MOST_SCORES:
        raise InvalidInputError(f"add_evaluations: more than {_MOST_SCORES:,} scores")
    scores = [_score(each) for each in given["evaluations"]]
    raw = Digest(given["raw"]) if given.get("raw") else None
    if raw is not None:
        receiver.require_usable([raw])
    return writer.add_evaluations(_version(writer, given, Action.PUSH, receiver), scores, raw=raw)


def _score(document: Any) -> Evaluation:
    for value in document.values():
        if isinstance(value, str):
            _text(value, 1000)
    return _SCORES.validate_python(values.read_evaluation(document), strict=True)


def _add_base(writer: CatalogWriter, given: Arguments, receiver: Receiver) -> bool:
    base = values.read_base(given["base"])
    if base is None:
        raise ValueError("no base")
    receiver.require_base(base)
    return writer.add_base(base)


def _rename(writer: CatalogWriter, given: Arguments, receiver: Receiver) -> None:
    to = AdapterName.parse(given["to"])
    receiver.caller.require(Action.PUSH, to)
    writer.rename_adapter(AdapterName.parse(given["adapter"]), to)


def _add_token(writer: CatalogWriter, given: Arguments, receiver: Receiver) -> Token:
    token = values.read_token(given["token"])
    if receiver.caller.registry.catalog.find_token(token.id) is not None:
        raise ConflictError(f"there is a token {token.id} already", code="token-exists")
    return writer.add_token(token)


STEPS: Mapping[str, Step] = {
    "resolve": Step(Action.READ, _resolve),
    "aliases": Step(Action.READ, lambda writer, given, _: writer.aliases(AdapterName.parse(given["adapter"]))),
    "evaluations": Step(
        Action.READ, lambda writer, given, at: writer.evaluations(_version(writer, given, Action.READ, at))
    ),
    "add_version": Step(Action.PUSH, lambda writer, given, receiver: receiver.add_version(writer, given)),
    "move_alias": Step(Action.TAG, _move_alias),
    "set_tags": Step(
        Action.TAG,
        lambda writer, given, at: writer.set_tags(_version(writer, given, Action.TAG, at), checked_tags(given["tags"])),
    ),
    "remove_tags": Step(
        Action.TAG,
        lambda writer, given, at: writer.remove_tags(_version(writer, given, Action.TAG, at), given["keys"]),
    ),
    "yank": Step(
        Action.YANK,
        lambda writer, given, at: writer.yank(_version(writer, given, Action.YANK, at), _reason(given)),
    ),
    "unyank": Step(Action.YANK, lambda writer, given, at: writer.unyank(_version(writer, given, Action.YANK, at))),
    "delete": Step(
        Action.DELETE,
        lambda writer, given, at: writer.delete(_version(writer, given, Action.DELETE, at), _reason(given)),
    ),
    "add_evaluations": Step(Action.PUSH, _add_evaluations),
    "add_base": Step(Action.ADMIN, _add_base),
    "alias_base": Step(Action.ADMIN, lambda writer, given, _: writer.alias_base(given["name"], given["canonical"])),
    "create_adapter": Step(
        Action.PUSH,
        lambda writer, given, _: writer.create_adapter(
            AdapterName.parse(given["adapter"]), private=bool(given["private"])
        ),
    ),
    "set_private": Step(
        Action.PUSH,
        lambda writer, given, _: writer.set_private(
            AdapterName.parse(given["adapter"]), private=bool(given["private"])
        ),
    ),
    "remove_adapter": Step(
        Action.DELETE,
        lambda writer, given, _: writer.remove_adapter(AdapterName.parse(given["adapter"]), _reason(given)),
    ),
    "rename_adapter": Step(Action.DELETE, _rename),
    "add_token": Step(Action.ADMIN, _add_token),
    "revoke_token": Step(Action.ADMIN, lambda writer, given, _: writer.revoke_token(given["token_id"])),
}


class Transaction(BaseModel):
    """Steps are carried out in order, all or none. With ``commit`` false they are taken back once they have been answered; with
    ``commit`` true they stay if they answer what ``answered`` is the digest of."""

    steps: list[dict[str, Any]] = Field(min_length=1, max_length=_MOST_STEPS)
    commit: bool
    answered: str | None = None


class _TakenBackError(Exception):
    """Ends a transaction that was only a question."""


@router.post("/transactions", summary="Several changes at once, or none")
def transact(
    request: Request,
    caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))],
    wanted: Transaction,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    _require_writer(caller)
    for step in wanted.steps:
        _require(caller, step)
    receiver = Receiver(caller, request.app.state.possessions)
    if not wanted.commit:
        return _carried_out(caller, wanted, receiver)
    request.app.state.gatekeeper.count_push(caller)
    if all(STEPS[step["do"]].action is Action.READ for step in wanted.steps):  # it may be done again
        return _carried_out(caller, wanted, receiver)
    body = wanted.model_dump_json().encode()
    once: Once = request.app.state.once
    return once.done(caller.actor, idempotency_key, body, lambda: _carried_out(caller, wanted, receiver))


def _require_writer(caller: Caller) -> None:
    """A transaction keeps all other writers waiting, even one that is only a question."""
    if caller.open:
        return
    if caller.token is None:
        raise UnauthenticatedError
    if not caller.token.actions - {Action.READ}:
        raise DeniedError(
            "this token may only read", code="forbidden", hint="ask an administrator for one that may write"
        )


def _carried_out(caller: Caller, wanted: Transaction, receiver: Receiver) -> dict[str, Any]:
    results: list[Any] = []
    try:
        with caller.registry.catalog.writing() as writer:
            for step in wanted.steps:
                results.append(_done(writer, step, receiver))
            answered = _digest(results)
            if not wanted.commit:
                raise _TakenBackError
            if wanted.answered is not None and wanted.answered != answered:
                raise ChangedMeanwhileError
    except _TakenBackError:
        pass
    return {"results": results, "answered": answered}


def _require(caller: Caller, step: Arguments) -> None:
    """Before anything is carried out."""
    name = str(step.get("do"))
    if name not in STEPS:
        raise InvalidInputError(f"there is no step {name!r:.60}", code="unknown-step")
    try:
        adapters = _adapters_named(step)
    except (TypeError, AttributeError) as error:
        raise InvalidInputError(f"{name}: the arguments cannot be read") from error
    by_digest = not adapters and ("version" in step or "reference" in step)  # whose it is shows once it is found
    if by_digest:
        caller.require_anywhere(STEPS[name].action)
    elif not adapters:
        caller.require(STEPS[name].action)
    for adapter in adapters:
        caller.require(STEPS[name].action, adapter)


def _done(writer: CatalogWriter, step: Arguments, receiver: Receiver) -> Any:
    name = step["do"]
    given = {key: value for key, value in step.items() if key != "do"}
    _require_texts(given)
    try:
        return RESULTS[name][0](STEPS[name].do(writer, given, receiver))
    except _UNREADABLE as error:
        raise InvalidInputError(f"{name}: the arguments cannot be read: {error!r:.200}") from error


#: They differ each time.
_TIMES = frozenset(["created_at", "revoked_at", "at"])


def _digest(results: list[Any]) -> str:
    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if key not in _TIMES}
        return [timeless(each) for each in value] if isinstance(value, (list, tuple)) else value

    return hashlib.sha256(json.dumps(timeless(results), sort_keys=True).encode()).hexdigest()
