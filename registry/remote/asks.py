"""The questions that a catalog answers, as they travel: ``POST /v1/catalog/NAME`` with the arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from registry.remote import values


def listed(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda found: [one(each) for each in found]


def same(value: Any) -> Any:
    return value


def maybe(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else one(value)


#: Each question with how its answer is written, and read.
ANSWERS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "resolve": (values.version_document, values.read_version),
    "find_version": (maybe(values.version_document), maybe(values.read_version)),
    "versions": (listed(values.version_document), listed(values.read_version)),
    "search": (listed(values.version_document), listed(values.read_version)),
    "live_versions": (listed(values.version_document), listed(values.read_version)),
    "aliases": (same, same),
    "alias_history": (listed(values.move_document), listed(values.read_move)),
    "evaluations": (listed(lambda each: each.document()), listed(values.read_evaluation)),
    "audit": (listed(values.entry_document), listed(values.read_entry)),
    "events": (listed(values.entry_document), listed(values.read_entry)),
    "references": (listed(str), same),
    "owners": (same, same),
    "holders": (listed(str), same),
    "find_base": (values.base_document, values.read_base),
    "bases": (listed(values.base_document), listed(values.read_base)),
    "base_aliases": (same, same),
    "find_adapter": (values.adapter_document, values.read_adapter),
    "adapters": (listed(values.adapter_document), listed(values.read_adapter)),
    "has_namespace": (same, same),
    "commits": (listed(values.commit_document), listed(values.read_commit)),
    "find_token": (maybe(lambda token: token.document()), maybe(values.read_token)),
    "tokens": (listed(lambda token: token.document()), listed(values.read_token)),
}

#: Each step of a transaction, likewise.
RESULTS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "resolve": ANSWERS["resolve"],
    "aliases": ANSWERS["aliases"],
    "evaluations": ANSWERS["evaluations"],
    "add_version": (
        lambda found: [values.version_document(found[0]), found[1]],
        lambda found: (values.read_version(found[0]), bool(found[1])),
    ),
    "move_alias": (values.move_document, values.read_move),
    "set_tags": (same, same),
    "remove_tags": (same, same),
    "yank": (same, same),
    "unyank": (same, same),
    "delete": (same, same),
    "add_evaluations": (same, same),
    "add_base": (same, same),
    "alias_base": (same, same),
    "create_adapter": (same, same),
    "set_private": (same, same),
    "remove_adapter": (same, same),
    "rename_adapter": (same, same),
    "add_token": (lambda token: token.document(), values.read_token),
    "revoke_token": (lambda token: token.document(), values.read_token),
}
