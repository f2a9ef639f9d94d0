"""Changes of the catalog for the command line and the Python API elsewhere: transactions of several steps.

Who may do what is decided here step by step, by the same :class:`Caller` as everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from registry.api import arguments
from registry.api.arguments import Arguments, read
from registry.api.callers import Caller, Gatekeeper, Requires
from registry.api.hub_protocol.endings import finish_uploads_if_possible
from registry.api.once import Key, Once
from registry.api.receiving import Received, Receiver, receiver_for
from registry.api.routes.catalog import meant
from registry.api.texts import RequestBody
from registry.api.told import without_surroundings
from registry.catalog.protocol import ANYTHING, CatalogWriter
from registry.domain.access import Action, Token
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, Reference
from registry.domain.tags import checked_tags
from registry.domain.version import AliasMove, Version
from registry.errors import ChangedMeanwhileError, InvalidInputError, UnavailableError
from registry.operations.gate import Scores
from registry.remote import asks, values
from registry.remote.asks import Ask

router = APIRouter(prefix="/v1", tags=["remote command line"])

_MOST_STEPS = 500
#: So many transactions of a worker wait for the one writer at a time: threads are for others, too.
_WAITING = BoundedSemaphore(8)


@dataclass(frozen=True)
class Step:
    """``action`` is what the caller must be allowed for every adapter that the step names, None for anything. One that only
    ``reads`` takes a catalog as well as a writer. What ``beforehand`` makes of the arguments is what ``do`` is given: it is done
    before the transaction, in which nobody else can write."""

    ask: Ask[Any]
    action: Action | None
    takes: type[Arguments]
    do: Callable[[Any, Any, Receiver], Any]
    reads: bool = False
    beforehand: Callable[[Any, Receiver], Any] = lambda given, _receiver: given


def _adapters_named(given: Arguments) -> list[AdapterName]:
    """All that a step names, whichever of them it is about."""
    named = [getattr(given, key).adapter for key in ("version", "reference") if hasattr(given, key)]
    return [*([given.adapter] if hasattr(given, "adapter") else []), *(each for each in named if each is not None)]


def _theirs(scores: Scores, reference: Reference, action: Action, receiver: Receiver) -> Version:
    """A version as it is in this transaction, for whoever may do this with it. Raises NotFoundError."""
    adapter, reference = receiver.caller.named(reference, scores)
    receiver.caller.require(action, adapter)
    return scores.resolve(reference)


def _on_version(
    action: Action, do: Callable[[Any, Version, Any], Any]
) -> Callable[[CatalogWriter, Any, Receiver], Any]:
    return lambda writer, given, receiver: do(writer, _theirs(writer, given.version, action, receiver), given)


def _move_alias(writer: CatalogWriter, given: arguments.MoveAlias, _receiver: Receiver) -> Any:
    expected = given.expected if "expected" in given.model_fields_set else ANYTHING
    gate = given.gate.model_dump() if given.gate is not None else None
    return writer.move_alias(given.adapter, given.alias, given.to, expected=expected, gate=gate)


def _add_version(writer: CatalogWriter, received: Received, receiver: Receiver) -> tuple[Version, bool]:
    version, created = receiver.add_version(writer, received)
    return without_surroundings(receiver.caller, version), created


def _add_evaluations(writer: CatalogWriter, given: arguments.AddEvaluations, receiver: Receiver) -> int:
    scores = [values.read_evaluation(each.model_dump()) for each in given.evaluations]
    if given.raw is not None:
        receiver.require_usable([given.raw])
    return writer.add_evaluations(_theirs(writer, given.version, Action.PUSH, receiver), scores, raw=given.raw)


def _add_base(writer: CatalogWriter, given: arguments.AddBase, receiver: Receiver) -> bool:
    base = given.base.stored()
    receiver.require_base(base)
    return writer.add_base(base)


def _set_private(writer: CatalogWriter, given: arguments.Visibility, receiver: Receiver) -> None:
    receiver.caller.require_visibility(given.adapter, private=given.private)
    writer.set_private(given.adapter, private=given.private)


def _rename(writer: CatalogWriter, given: arguments.Rename, receiver: Receiver) -> None:
    receiver.caller.require(Action.PUSH, given.to)
    writer.rename_adapter(given.adapter, given.to)


_ALL = (
    Step(
        asks.RESOLVE,
        None,
        arguments.AboutReference,
        lambda scores, given, receiver: meant(receiver.caller, given.reference, scores),
        reads=True,
    ),
    Step(
        asks.ALIASES,
        Action.READ,
        arguments.AboutAdapter,
        lambda scores, given, _: scores.aliases(given.adapter),
        reads=True,
    ),
    Step(
        asks.EVALUATIONS,
        Action.READ,
        arguments.AboutVersion,
        _on_version(Action.READ, lambda scores, version, _given: scores.evaluations(version)),
        reads=True,
    ),
    Step(
        asks.ADD_VERSION,
        Action.PUSH,
        arguments.AddVersion,
        _add_version,
        beforehand=lambda given, receiver: receiver.received(given),
    ),
    Step(asks.MOVE_ALIAS, Action.TAG, arguments.MoveAlias, _move_alias),
    Step(
        asks.SET_TAGS,
        Action.TAG,
        arguments.SetTags,
        _on_version(Action.TAG, lambda writer, version, given: writer.set_tags(version, checked_tags(given.tags))),
    ),
    Step(
        asks.REMOVE_TAGS,
        Action.TAG,
        arguments.RemoveTags,
        _on_version(Action.TAG, lambda writer, version, given: writer.remove_tags(version, given.keys)),
    ),
    Step(
        asks.YANK,
        Action.YANK,
        arguments.AboutVersionWhy,
        _on_version(Action.YANK, lambda writer, version, given: writer.yank(version, given.reason)),
    ),
    Step(
        asks.UNYANK,
        Action.YANK,
        arguments.AboutVersion,
        _on_version(Action.YANK, lambda writer, version, _given: writer.unyank(version)),
    ),
    Step(
        asks.DELETE,
        Action.DELETE,
        arguments.AboutVersionWhy,
        _on_version(Action.DELETE, lambda writer, version, given: writer.delete(version, given.reason)),
    ),
    Step(asks.ADD_EVALUATIONS, Action.PUSH, arguments.AddEvaluations, _add_evaluations),
    Step(asks.ADD_BASE, Action.ADMIN, arguments.AddBase, _add_base),
    Step(
        asks.ALIAS_BASE,
        Action.ADMIN,
        arguments.AliasBase,
        lambda writer, given, _: writer.alias_base(given.name, given.canonical),
    ),
    Step(
        asks.CREATE_ADAPTER,
        Action.PUSH,
        arguments.Visibility,
        lambda writer, given, _: writer.create_adapter(given.adapter, private=given.private),
    ),
    Step(asks.SET_PRIVATE, Action.PUSH, arguments.Visibility, _set_private),
    Step(
        asks.REMOVE_ADAPTER,
        Action.DELETE,
        arguments.AboutAdapterWhy,
        lambda writer, given, _: writer.remove_adapter(given.adapter, given.reason),
    ),
    Step(asks.RENAME_ADAPTER, Action.DELETE, arguments.Rename, _rename),
    Step(
        asks.ADD_TOKEN,
        Action.ADMIN,
        arguments.AddToken,
        lambda writer, given, _: writer.add_token(values.read_token(given.token.model_dump())),
    ),
    Step(
        asks.REVOKE_TOKEN,
        Action.ADMIN,
        arguments.AboutToken,
        lambda writer, given, _: writer.revoke_token(given.token_id),
    ),
)
STEPS: Mapping[str, Step] = {step.ask.name: step for step in _ALL}


class Transaction(RequestBody):
    """Steps are carried out in order, all or none. With ``commit`` true they stay if they answer what ``answered`` is the digest
    of. With ``commit`` false they are taken back once they have been answered; ``answered`` is of all but the last one then."""

    steps: list[dict[str, Any]] = Field(min_length=1, max_length=_MOST_STEPS)
    commit: bool
    answered: str | None = Field(None, max_length=64)


@dataclass(frozen=True)
class Asked:
    """A step as it was read; then as it was made ready."""

    step: Step
    given: Any

    def ready(self, receiver: Receiver) -> Asked:
        return Asked(self.step, self.step.beforehand(self.given, receiver))


class _TakenBackError(Exception):
    """Ends a transaction that was only a question."""


class Changes(Requires):
    """For whoever may change something somewhere: each request takes the one writer's time, whether it commits or not."""

    def __init__(self) -> None:
        super().__init__(Action.PUSH, somewhere=True)

    def __call__(self, request: Request) -> Caller:
        gatekeeper: Gatekeeper = request.app.state.gatekeeper
        caller = gatekeeper.caller(request, writes=True)
        caller.require_change()
        gatekeeper.count_push(caller)
        return caller


@router.post("/transactions", summary="Several changes at once, or none")
def transact(
    request: Request,
    caller: Annotated[Caller, Depends(Changes())],
    wanted: Transaction,
    idempotency_key: Key = None,
) -> dict[str, Any]:
    steps = [_read(caller, step) for step in wanted.steps]
    receiver = receiver_for(caller, request)
    if all(asked.step.reads for asked in steps):
        return _answer(wanted, steps, [_done(caller.registry.catalog, asked, receiver) for asked in steps])
    for adapter in {adapter for asked in steps for adapter in _adapters_named(asked.given)}:
        finish_uploads_if_possible(adapter, request.app.state.hub)
    if not _WAITING.acquire(blocking=False):
        raise UnavailableError("too many transactions wait for each other", code="busy", hint="try again")
    try:
        if not wanted.commit:
            return _carried_out(caller, wanted, steps, receiver)
        once: Once = request.app.state.once
        body = json.dumps(wanted.model_dump()).encode()
        return once.done(caller, idempotency_key, body, lambda caller: _carried_out(caller, wanted, steps, receiver))
    finally:
        _WAITING.release()


def _carried_out(caller: Caller, wanted: Transaction, steps: list[Asked], receiver: Receiver) -> dict[str, Any]:
    steps = [asked.ready(receiver) for asked in steps]
    try:
        with caller.registry.catalog.writing() as writer:
            answer = _answer(wanted, steps, [_done(writer, asked, receiver) for asked in steps])
            if not wanted.commit:
                raise _TakenBackError
    except _TakenBackError:
        pass
    return answer


def _read(caller: Caller, document: Mapping[str, Any]) -> Asked:
    """A step of a caller who may take it, before anything is carried out."""
    name = document.get("do")
    if not isinstance(name, str) or name not in STEPS:
        raise InvalidInputError(f"there is no step {name!r:.60}", code="unknown-step")
    step = STEPS[name]
    if step.action is not None and not step.takes.model_fields.keys() & {"adapter", "version", "reference"}:
        caller.require(step.action)
    given = read(step.takes, {key: value for key, value in document.items() if key != "do"}, of=name)
    named = _adapters_named(given)
    if not named:
        caller.require_anywhere(step.action or Action.READ)  # whose it is shows once it is found
    for adapter in named:
        caller.require(step.action or caller.own_action(adapter), adapter)
    return Asked(step, given)


def _done(catalog: Any, asked: Asked, receiver: Receiver) -> Any:
    return asked.step.do(catalog, asked.given, receiver)


def _answer(wanted: Transaction, steps: Sequence[Asked], found: Sequence[Any]) -> dict[str, Any]:
    """Raises ChangedMeanwhileError."""
    if wanted.answered is not None and wanted.answered != _digest(found if wanted.commit else found[:-1]):
        raise ChangedMeanwhileError
    results = [asked.step.ask.codec.write(each) for asked, each in zip(steps, found, strict=True)]
    return {"results": results, "answered": _digest(found)}


#: Fields that differ each time, or with what others do elsewhere: nobody's step hangs on them.
_DIFFER: Mapping[type, Collection[str]] = {
    Version: ["created_at", "place"],
    Evaluation: ["at"],
    AliasMove: ["at"],
    Token: ["created_at", "revoked_at"],
}


def _digest(found: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(_lasting(found), sort_keys=True).encode()).hexdigest()


def _lasting(value: Any) -> Any:
    """What the same steps find at another time. Of mappings, whose keys may be anybody's words, that is everything."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in _DIFFER.get(type(value), ())]
        return {name: _lasting(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _lasting(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_lasting(each) for each in value] if isinstance(value, (list, tuple)) else value
