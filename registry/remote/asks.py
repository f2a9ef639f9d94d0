"""The questions that a catalog answers, as they travel: ``POST /v1/catalog/NAME`` with the arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from registry.domain.base_model import StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName
from registry.domain.version import Adapter, AliasMove, AuditEntry
from registry.remote import values


def listed(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda found: [one(each) for each in found]


def read_list(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda found: [one(each) for each in values.shaped(found, list[object])]


def read(hint: Any) -> Callable[[Any], Any]:
    """As a field with this annotation is read."""
    return lambda found: values.shaped(found, hint)


def nothing(_found: Any) -> None: ...


def same(value: Any) -> Any:
    return value


def maybe(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else one(value)


#: Each question with how its answer is written, and read.
ANSWERS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "resolve": (values.version_document, values.read_version),
    "find_version": (maybe(values.version_document), maybe(values.read_version)),
    "versions": (listed(values.version_document), read_list(values.read_version)),
    "search": (listed(values.version_document), read_list(values.read_version)),
    "aliases": (same, read(Mapping[str, int])),
    "alias_history": (listed(values.move_document), read(list[AliasMove])),
    "evaluations": (listed(lambda each: each.document()), read(list[Evaluation])),
    "audit": (listed(values.entry_document), read(list[AuditEntry])),
    "events": (listed(values.entry_document), read(list[AuditEntry])),
    "references": (listed(str), read(list[Digest])),
    "owners": (same, read(list[str])),
    "holders": (listed(str), read(list[AdapterName])),
    "find_base": (values.base_document, read(StoredBase | None)),
    "bases": (listed(values.base_document), read(list[StoredBase])),
    "base_aliases": (same, read(Mapping[str, str])),
    "find_adapter": (values.adapter_document, read(Adapter | None)),
    "adapters": (listed(values.adapter_document), read(list[Adapter])),
    "has_namespace": (same, read(bool)),
    "commits": (listed(values.commit_document), read(list[Commit])),
    "find_token": (maybe(lambda token: token.document()), maybe(values.read_token)),
    "tokens": (listed(lambda token: token.document()), read_list(values.read_token)),
}

#: Each step of a transaction, likewise.
RESULTS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "resolve": ANSWERS["resolve"],
    "aliases": ANSWERS["aliases"],
    "evaluations": ANSWERS["evaluations"],
    "add_version": (
        lambda found: [values.version_document(found[0]), found[1]],
        lambda found: (values.read_version(found[0]), values.shaped(found[1], bool)),
    ),
    "move_alias": (values.move_document, read(AliasMove | None)),
    "set_tags": (same, nothing),
    "remove_tags": (same, nothing),
    "yank": (same, nothing),
    "unyank": (same, nothing),
    "delete": (same, nothing),
    "add_evaluations": (same, read(int)),
    "add_base": (same, read(bool)),
    "alias_base": (same, read(bool)),
    "create_adapter": (same, read(bool)),
    "set_private": (same, nothing),
    "remove_adapter": (same, nothing),
    "rename_adapter": (same, nothing),
    "add_token": (lambda token: token.document(), values.read_token),
    "revoke_token": (lambda token: token.document(), values.read_token),
}
