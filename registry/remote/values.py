"""The values of the dictionary as JSON, and back.

Both sides use this file, so what a catalog takes and gives is the same here and there. A document that cannot be read is the other
side's fault: whoever decodes raises ValueError, TypeError or KeyError, or an InvalidNameError of the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from registry.domain.access import Action, NamespacePattern, Token
from registry.domain.base_model import BaseModelId, StoredBase
from registry.domain.commit import Commit
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding, Severity
from registry.domain.names import AdapterName, Reference
from registry.domain.query import MetricCondition, MetricName, VersionQuery
from registry.domain.version import Adapter, AliasMove, AuditEntry, Version

Document = Mapping[str, Any]
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_LONGEST_NAME = 96


def version_document(version: Version) -> dict[str, Any]:
    return {
        "adapter": str(version.adapter),
        "number": version.number,
        "digest": version.digest,
        "created_at": version.created_at,
        "summary": dict(version.summary),
        "note": version.note,
        "yanked": version.yanked,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "findings": [finding.document() for finding in version.findings],
        "score": version.score.document() if version.score else None,
    }


def read_version(document: Document) -> Version:
    return Version(
        adapter=AdapterName.parse(document["adapter"]),
        number=int(document["number"]),
        digest=Digest(document["digest"]),
        created_at=document["created_at"],
        summary=document["summary"],
        note=document["note"],
        yanked=document["yanked"],
        aliases=tuple(document["aliases"]),
        tags=document["tags"],
        findings=tuple(read_finding(finding) for finding in document["findings"]),
        score=read_evaluation(document["score"]) if document["score"] else None,
    )


def read_finding(document: Document) -> Finding:
    return Finding(**{**document, "severity": Severity(document["severity"])})


def read_evaluation(document: Document) -> Evaluation:
    known = {field.name for field in fields(Evaluation)}
    return Evaluation(**{key: value for key, value in document.items() if key in known})


def move_document(move: AliasMove | None) -> dict[str, Any] | None:
    return None if move is None else asdict(move)


def read_move(document: Document | None) -> AliasMove | None:
    return None if document is None else AliasMove(**document)


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    return asdict(entry)


def read_entry(document: Document) -> AuditEntry:
    return AuditEntry(**document)


def adapter_document(adapter: Adapter | None) -> dict[str, Any] | None:
    return None if adapter is None else {"name": str(adapter.name), "private": adapter.private}


def read_adapter(document: Document | None) -> Adapter | None:
    return None if document is None else Adapter(AdapterName.parse(document["name"]), bool(document["private"]))


def commit_document(commit: Commit) -> dict[str, Any]:
    return asdict(commit)


def read_commit(document: Document) -> Commit:
    return Commit(**{**document, "tree": Digest(document["tree"])})


def base_document(base: StoredBase | None) -> dict[str, Any] | None:
    return None if base is None else {"id": base.id.document(), "digest": base.digest}


def read_base(document: Document | None) -> StoredBase | None:
    return None if document is None else StoredBase(BaseModelId(**document["id"]), Digest(document["digest"]))


def token_document(token: Token) -> dict[str, Any]:
    """With the hash: what a new token is kept as."""
    return {**token.document(), "hash": token.hash}


def read_token(document: Document) -> Token:
    """Without a hash, a token that can be looked at and not held against anything."""
    for stamp in (document["expires_at"], document["revoked_at"]):
        if stamp is not None and not _STAMP.fullmatch(stamp):  # they are compared as texts
            raise ValueError(f"{stamp!r:.40} is no time")
    for text in (document["id"], document["name"]):
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_NAME:
            raise ValueError(f"{text!r:.40} is no name")
    return Token(
        document["id"],
        document["name"],
        document.get("hash", ""),
        frozenset(Action(action) for action in document["actions"]),
        tuple(NamespacePattern(pattern) for pattern in document["namespaces"]),
        document["created_at"],
        document["expires_at"],
        document["revoked_at"],
    )


def query_document(query: VersionQuery) -> dict[str, Any]:
    """Without ``visible``: that is for the server to say."""
    metrics = [[each.name.metric, each.name.task, each.operator, each.value] for each in query.metrics]
    return {**asdict(query), "metrics": metrics, "visible": None}


def read_query(document: Document) -> VersionQuery:
    metrics = tuple(
        MetricCondition(MetricName(metric, task), operator, float(value))
        for metric, task, operator, value in document["metrics"]
    )
    low, high = document["ranks"]
    return VersionQuery(
        **{
            **document,
            "metrics": metrics,
            "ranks": (low, high),
            "targets": tuple(document["targets"]),
            "tags": tuple((key, value) for key, value in document["tags"]),
            "visible": None,
        }
    )


def reference_of(version: Version) -> str:
    return version.reference


def read_reference(text: str) -> Reference:
    return Reference.parse(text)
