"""The catalog for the command line and the Python API elsewhere: its questions. Changes are :mod:`transactions
<registry.api.routes.transactions>`.

Who may ask what is decided here question by question, by the same :class:`Caller` as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from registry.api import arguments
from registry.api.arguments import MOST_ROWS, Arguments, read
from registry.api.callers import Caller, Requires
from registry.api.cursors import require_page_end
from registry.api.told import known_by_name, may_see, told, without_surroundings
from registry.domain.access import Action
from registry.domain.names import AdapterName, Reference
from registry.domain.version import AuditEntry, Version
from registry.errors import NotFoundError
from registry.operations.gate import Scores
from registry.remote import asks, values
from registry.remote.asks import Ask

router = APIRouter(prefix="/v1", tags=["remote command line"])


@dataclass(frozen=True)
class Question:
    """``administrator``: it is for nobody else."""

    ask: Ask[Any]
    takes: type[Arguments]
    answer: Callable[[Caller, Any], Any]
    administrator: bool = False


@router.post("/catalog/{question}", summary="Ask the catalog")
def ask(
    caller: Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))], question: str, given: dict[str, Any]
) -> dict[str, Any]:
    """The questions are those of the catalog's protocol; answers hold only what the caller may read."""
    if question not in QUESTIONS:
        raise NotFoundError(f"there is no question {question!r:.60}", code="unknown-question")
    asked = QUESTIONS[question]
    if asked.administrator:
        caller.require(Action.ADMIN)
    answer = asked.answer(caller, read(asked.takes, given, of=question))
    return {"answer": asked.ask.codec.write(answer)}


def _of_version(caller: Caller, reference: Reference) -> Version:
    """For whoever may read it. Raises NotFoundError."""
    adapter, reference = caller.named(reference, caller.registry.catalog)
    caller.require(Action.READ, adapter)
    return caller.registry.catalog.resolve(reference)


def meant(caller: Caller, reference: Reference, catalog: Scores) -> Version:
    """For whoever may do anything with the adapter: to say which version they mean. Raises NotFoundError."""
    adapter, reference = caller.named(reference, catalog)
    caller.require(caller.own_action(adapter), adapter)
    return known_by_name(caller, catalog.resolve(reference))


def _readable(caller: Caller, adapter: AdapterName) -> AdapterName:
    caller.require(Action.READ, adapter)
    return adapter


def _search(caller: Caller, given: arguments.Search) -> list[Version]:
    query = values.read_query({**given.query.model_dump(), "limit": _rows(given.query.limit)}).seen_by(caller.visible)
    if query.after is not None:
        if query.after.keys:
            require_page_end(query.after, query)
        else:
            _of_version(caller, Reference.parse(query.after.reference))
    return caller.registry.catalog.search(query)


def _audit(caller: Caller, given: arguments.Audit) -> list[AuditEntry]:
    """What :mod:`events <registry.api.routes.events>` tells of it, the newest first."""
    if given.adapter is None:
        caller.require(Action.ADMIN)
    else:
        caller.require(Action.READ, given.adapter)
    found = caller.registry.catalog.audit(given.adapter, limit=_rows(given.limit or MOST_ROWS))
    return [told(caller, entry) for entry in found if may_see(caller, entry)]


def _find_version(caller: Caller, given: arguments.FindVersion) -> Version | None:
    """Whoever may push may ask whether what they have is there already."""
    if not caller.may(Action.READ, given.adapter):
        caller.require(Action.PUSH, given.adapter)
    found = caller.registry.catalog.find_version(given.adapter, given.digest)
    return without_surroundings(caller, found) if found else None


def _find_adapter(caller: Caller, given: arguments.AboutAdapter) -> Any:
    return caller.registry.catalog.find_adapter(given.adapter) if caller.may(Action.READ, given.adapter) else None


def _adapters(caller: Caller, given: arguments.MaybeOfNamespace) -> Any:
    known = caller.registry.catalog.adapters(namespace=given.namespace)
    return [adapter for adapter in known if caller.may(Action.READ, adapter.name)]


def _rows(limit: int) -> int:
    return min(limit, MOST_ROWS)


_ALL = (
    Question(
        asks.RESOLVE,
        arguments.AboutReference,
        lambda caller, given: meant(caller, given.reference, caller.registry.catalog),
    ),
    Question(asks.FIND_VERSION, arguments.FindVersion, _find_version),
    Question(
        asks.VERSIONS,
        arguments.Versions,
        lambda caller, given: caller.registry.catalog.versions(
            _readable(caller, given.adapter), below=given.below, limit=_rows(given.limit)
        ),
    ),
    Question(asks.SEARCH, arguments.Search, _search),
    Question(
        asks.ALIASES,
        arguments.AboutAdapter,
        lambda caller, given: caller.registry.catalog.aliases(_readable(caller, given.adapter)),
    ),
    Question(
        asks.ALIAS_HISTORY,
        arguments.AliasHistory,
        lambda caller, given: caller.registry.catalog.alias_history(_readable(caller, given.adapter), given.alias),
    ),
    Question(
        asks.EVALUATIONS,
        arguments.AboutVersion,
        lambda caller, given: caller.registry.catalog.evaluations(_of_version(caller, given.version)),
    ),
    Question(asks.AUDIT, arguments.Audit, _audit),
    Question(
        asks.EVENTS,
        arguments.Events,
        lambda caller, given: caller.registry.catalog.events(given.after, limit=_rows(given.limit)),
        administrator=True,
    ),
    Question(
        asks.REFERENCES,
        arguments.Nothing,
        lambda caller, _given: list(caller.registry.catalog.references()),
        administrator=True,
    ),
    Question(
        asks.OWNERS,
        arguments.AboutDigest,
        lambda caller, given: caller.registry.catalog.owners(given.digest),
        administrator=True,
    ),
    Question(
        asks.HOLDERS,
        arguments.AboutDigest,
        lambda caller, given: caller.registry.catalog.holders(given.digest),
        administrator=True,
    ),
    Question(
        asks.FIND_BASE,
        arguments.FindBase,
        lambda caller, given: caller.registry.catalog.find_base(given.name, given.revision),
    ),
    Question(asks.BASES, arguments.Nothing, lambda caller, _given: caller.registry.catalog.bases()),
    Question(asks.BASE_ALIASES, arguments.Nothing, lambda caller, _given: caller.registry.catalog.base_aliases()),
    Question(asks.FIND_ADAPTER, arguments.AboutAdapter, _find_adapter),
    Question(asks.ADAPTERS, arguments.MaybeOfNamespace, _adapters),
    Question(
        asks.HAS_NAMESPACE,
        arguments.OfNamespace,
        lambda caller, given: caller.registry.catalog.has_namespace(given.namespace),
        administrator=True,
    ),
    Question(
        asks.COMMITS,
        arguments.AboutAdapter,
        lambda caller, given: caller.registry.catalog.commits(_readable(caller, given.adapter)),
    ),
    Question(
        asks.FIND_TOKEN,
        arguments.AboutToken,
        lambda caller, given: caller.registry.catalog.find_token(given.token_id),
        administrator=True,
    ),
    Question(
        asks.TOKENS, arguments.Nothing, lambda caller, _given: caller.registry.catalog.tokens(), administrator=True
    ),
)
QUESTIONS: Mapping[str, Question] = {question.ask.name: question for question in _ALL}
