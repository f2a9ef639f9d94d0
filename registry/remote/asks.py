"""What a catalog is asked, as it travels: a question is ``POST /v1/catalog/NAME`` with the arguments by name, a step is part of a
transaction. Both sides write and read what is answered by the same :class:`Codec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from registry.domain.access import Token
from registry.domain.base_model import BaseAliases, StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version
from registry.remote import values

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How a value is written as JSON, and read."""

    write: Callable[[T], Any]
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """A question or a step, and how its answer travels."""

    name: str
    codec: Codec[T]


def of(kind: type[T], write: Callable[[T], Any] = lambda value: value) -> Codec[T]:
    """Read as a field with this annotation is."""
    return Codec(write, lambda found: values.shaped(found, kind))


def listed(one: Codec[T]) -> Codec[list[T]]:
    return Codec(
        lambda found: [one.write(each) for each in found],
        lambda found: [one.read(each) for each in values.shaped(found, list[object])],
    )


def maybe(one: Codec[T]) -> Codec[T | None]:
    return Codec(
        lambda value: None if value is None else one.write(value),
        lambda found: None if found is None else one.read(found),
    )


_NOTHING: Codec[None] = Codec(lambda _value: None, lambda _found: None)
_VERSION = Codec(values.version_document, values.read_version)
_ADDED: Codec[tuple[Version, bool]] = Codec(
    lambda found: [values.version_document(found[0]), found[1]],
    lambda found: (values.read_version(found[0]), values.shaped(found[1], bool)),
)
_MOVE = of(AliasMove, values.move_document)
_ENTRY = of(AuditEntry, values.entry_document)
_EVALUATION = of(Evaluation, Evaluation.document)
_BASE = of(StoredBase, values.base_document)
_BASE_ALIASES: Codec[BaseAliases] = Codec(
    lambda aliases: aliases.names, lambda found: BaseAliases(values.shaped(found, dict[str, str]))
)
_ADAPTER = of(Adapter, values.adapter_document)
_COMMIT = of(Commit, values.commit_document)
_TOKEN = Codec(Token.document, values.read_token)

# Questions that are steps as well.
RESOLVE = Ask("resolve", _VERSION)
ALIASES = Ask("aliases", of(dict[str, int]))
EVALUATIONS = Ask("evaluations", listed(_EVALUATION))

FIND_VERSION = Ask("find_version", maybe(_VERSION))
VERSIONS = Ask("versions", listed(_VERSION))
SEARCH = Ask("search", listed(_VERSION))
ALIAS_HISTORY = Ask("alias_history", listed(_MOVE))
AUDIT = Ask("audit", listed(_ENTRY))
EVENTS = Ask("events", listed(_ENTRY))
REFERENCES = Ask("references", listed(of(Digest)))
OWNERS = Ask("owners", of(list[str]))
HOLDERS = Ask("holders", listed(of(AdapterName, str)))
FIND_BASE = Ask("find_base", maybe(_BASE))
BASES = Ask("bases", listed(_BASE))
BASE_ALIASES = Ask("base_aliases", _BASE_ALIASES)
FIND_ADAPTER = Ask("find_adapter", maybe(_ADAPTER))
ADAPTERS = Ask("adapters", listed(_ADAPTER))
HAS_NAMESPACE = Ask("has_namespace", of(bool))
COMMITS = Ask("commits", listed(_COMMIT))
FIND_TOKEN = Ask("find_token", maybe(_TOKEN))
TOKENS = Ask("tokens", listed(_TOKEN))

ADD_VERSION = Ask("add_version", _ADDED)
MOVE_ALIAS = Ask("move_alias", maybe(_MOVE))
SET_TAGS = Ask("set_tags", _NOTHING)
REMOVE_TAGS = Ask("remove_tags", _NOTHING)
YANK = Ask("yank", _NOTHING)
UNYANK = Ask("unyank", _NOTHING)
DELETE = Ask("delete", _NOTHING)
ADD_EVALUATIONS = Ask("add_evaluations", of(int))
ADD_BASE = Ask("add_base", of(bool))
ALIAS_BASE = Ask("alias_base", of(bool))
CREATE_ADAPTER = Ask("create_adapter", of(bool))
SET_PRIVATE = Ask("set_private", _NOTHING)
REMOVE_ADAPTER = Ask("remove_adapter", _NOTHING)
RENAME_ADAPTER = Ask("rename_adapter", _NOTHING)
ADD_TOKEN = Ask("add_token", _TOKEN)
REVOKE_TOKEN = Ask("revoke_token", _TOKEN)
