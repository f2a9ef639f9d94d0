"""The values of the dictionary as JSON, and back.

Both sides use this file, so what a catalog takes and gives is the same here and there. A document that cannot be read is the other
side's fault: whoever decodes raises ValueError, TypeError, KeyError or AttributeError, or an InvalidNameError of the grammar. What
is read has the types that its fields say, all the way down; members that this version does not know are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from registry.domain.access import Action, NamespacePattern, Token
from registry.domain.base_model import StoredBase
from registry.domain.commit import Commit
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding
from registry.domain.names import MAX_NUMBER, AdapterName
from registry.domain.query import MetricCondition, MetricName, Position, VersionQuery
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version

Document = Mapping[str, Any]
T = TypeVar("T")


def shaped(value: Any, hint: Any) -> Any:
    """``value``, of JSON, as what the annotation ``hint`` of a field says. Raises TypeError, ValueError or InvalidNameError."""
    inner = get_args(hint)
    if hint in (Any, object):
        return value
    if isinstance(hint, UnionType):  # ``X | None`` is all there is
        return None if value is None else shaped(value, next(each for each in inner if each is not NoneType))
    if get_origin(hint) in (tuple, list):
        return get_origin(hint)(shaped(each, inner[0]) for each in _checked(value, list))
    if get_origin(hint) in (Mapping, dict):
        return {key: shaped(each, inner[1]) for key, each in _checked(value, dict).items()}
    if hint is AdapterName:
        return AdapterName.parse(_checked(value, str))
    if isinstance(hint, type) and is_dataclass(hint):
        return record(hint, _checked(value, dict))
    if issubclass(hint, str):
        return value if hint is str and isinstance(value, str) else hint(_checked(value, str))
    if hint is float and type(value) in (int, float):
        return float(value)
    return _checked(value, hint)


def record(kind: Callable[..., T], document: Document) -> T:
    """The dataclass ``kind`` of the members that are named as its fields."""
    return kind(**{name: shaped(document[name], hint) for name, hint in _fields(kind).items() if name in document})


@lru_cache
def _fields(kind: type) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r:.60} where {kind.__name__} was expected")
    return value


def version_document(version: Version) -> dict[str, Any]:
    return {
        "adapter": str(version.adapter),
        "number": version.number,
        "digest": version.digest,
        "created_at": version.created_at,
        "summary": version.summary.document(),
        "note": version.note,
        "yanked": version.yanked,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "findings": [finding.document() for finding in version.findings],
        "score": version.score.document() if version.score else None,
        "place": version.place,
    }


def read_version(document: Document) -> Version:
    version = record(Version, document)
    if not 1 <= version.number <= MAX_NUMBER:
        raise ValueError(f"version {version.number}")
    return version


def read_finding(document: Document) -> Finding:
    return record(Finding, document)


def read_evaluation(document: Document) -> Evaluation:
    return record(Evaluation, document)


def move_document(move: AliasMove) -> dict[str, Any]:
    return asdict(move)


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    return asdict(entry)


def adapter_document(adapter: Adapter) -> dict[str, Any]:
    return {"name": str(adapter.name), "private": adapter.private}


def commit_document(commit: Commit) -> dict[str, Any]:
    return asdict(commit)


def base_document(base: StoredBase) -> dict[str, Any]:
    return {"id": base.id.document(), "digest": base.digest}


def token_document(token: Token) -> dict[str, Any]:
    """With the hash: what a new token is kept as."""
    return {**token.document(), "hash": token.hash}


def read_token(document: Document) -> Token:
    """Without a hash, a token that can be looked at and not held against anything."""
    actions, patterns = document["actions"], document["namespaces"]
    return Token(
        shaped(document["id"], str),
        shaped(document["name"], str),
        shaped(document.get("hash", ""), str),
        frozenset(shaped(actions, tuple[Action, ...])),
        shaped(patterns, tuple[NamespacePattern, ...]),
        shaped(document["created_at"], str),
        shaped(document["expires_at"], str | None),
        shaped(document["revoked_at"], str | None),
    )


def query_document(query: VersionQuery) -> dict[str, Any]:
    """What is asked, and no more: an older server refuses conditions that it does not know. ``visible`` is for it to say."""
    metrics = [[each.name.metric, each.name.task, each.operator, each.value] for each in query.metrics]
    nothing = asdict(VersionQuery())
    stated = {**asdict(query), "metrics": metrics, "visible": None}
    return {name: value for name, value in stated.items() if value != nothing[name] and value != []}


def read_query(document: Document) -> VersionQuery:
    metrics = tuple(
        MetricCondition(MetricName(metric, task), operator, float(value))
        for metric, task, operator, value in document["metrics"]
    )
    low, high = document["ranks"]
    after = document["after"]
    return VersionQuery(
        **{
            **document,
            "metrics": metrics,
            "ranks": (low, high),
            "targets": tuple(document["targets"]),
            "tags": tuple((key, value) for key, value in document["tags"]),
            "after": Position(after["reference"], tuple(after["keys"])) if after is not None else None,
            "visible": None,
        }
    )
