"""What somebody looks for, in words, as a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from registry.domain.digest import Digest
from registry.domain.names import AliasName, Namespace, Reference
from registry.domain.query import MAX_PAGE, SORTS, MetricCondition, MetricName, Position, VersionQuery, parse_ranks
from registry.errors import InvalidValueError
from registry.formats.base_model_text import resolve_base


class Conditions(TypedDict, total=False):
    """All of them must hold. ``tags`` are ``key=value`` or ``key``, ``metrics`` conditions such as ``acc>=0.8``, ``rank`` is
    ``16`` or ``8..64``; ``sort`` is name, created, rank, bytes, parameters or a metric; ``after`` is the last row of the page
    before, ``limit`` the rows of a page (50; at most 1,000)."""

    base: str | None
    rank: str | int | None
    targets: Sequence[str]
    peft_type: str | None
    task_type: str | None
    tags: Sequence[str]
    alias: str | None
    metrics: Sequence[str]
    sort: str | None
    reverse: bool
    limit: int
    after: str | Position | None
    all_versions: bool
    namespace: str | None


def asked(
    text: str | None, *, namespace_of_names: str, parent: Digest | None = None, **conditions: Unpack[Conditions]
) -> VersionQuery:
    """``parent`` is the digest of a version that it was made from. Raises InvalidValueError for the first condition that is outside
    its grammar."""
    sort, limit, rank = conditions.get("sort"), conditions.get("limit", 50), conditions.get("rank")
    base, alias, after = conditions.get("base"), conditions.get("alias"), conditions.get("after")
    namespace = conditions.get("namespace")
    if sort is not None and sort not in SORTS:
        MetricName.parse(sort)
    if text is not None and not text.isprintable():
        raise InvalidValueError("name filter", text, "part of a name")
    if base == "":
        raise InvalidValueError("base model", base, "a name, such as meta-llama/Llama-3.1-8B")
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidValueError("page size", str(limit), "1 to 1000", hint="continue behind the last row with --after")
    tags = (tag.partition("=") for tag in conditions.get("tags", ()))
    return VersionQuery(
        text=text,
        base=canonical_base(base) if base is not None else None,
        ranks=parse_ranks(str(rank)) if rank is not None else (None, None),
        targets=tuple(conditions.get("targets", ())),
        peft_type=conditions.get("peft_type"),
        task_type=conditions.get("task_type"),
        tags=tuple((key, value if equals else None) for key, equals, value in tags),
        alias=str(AliasName(alias)) if alias is not None else None,
        metrics=tuple(MetricCondition.parse(metric) for metric in conditions.get("metrics", ())),
        parent=parent,
        sort=sort,
        reverse=conditions.get("reverse", False),
        limit=limit,
        after=_position(after, namespace_of_names) if after is not None else None,
        all_versions=conditions.get("all_versions", False),
        namespace=str(Namespace(namespace)) if namespace is not None else None,
    )


def _position(after: str | Position, namespace: str) -> Position:
    return after if isinstance(after, Position) else Position(str(Reference.parse(after, namespace=namespace)))


def canonical_base(name: str) -> str:
    """A mirror's name becomes the name of what it mirrors."""
    return resolve_base(name, None)[0].id or name
