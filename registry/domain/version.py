"""A version as the catalog knows it: the identity, and the few facts that move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding
from registry.domain.names import AdapterName
from registry.domain.summary import Summary


@dataclass(frozen=True, slots=True)
class Version:
    """``adapter`` and ``number`` name it, ``digest`` is its manifest's and its identity.

    ``yanked`` is the reason given, None if it is not yanked. ``score`` is the evaluation to show beside it in a list. ``place``
    counts the versions of a catalog in the order in which they were stored, None where nobody said: it stays whatever changes.
    """

    adapter: AdapterName
    number: int
    digest: Digest
    created_at: str
    summary: Summary
    note: str | None = None
    yanked: str | None = None
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    score: Evaluation | None = None
    place: int | None = None

    @property
    def reference(self) -> str:
        return f"{self.adapter}@{self.number}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A name with what belongs to the name alone. It may have no version yet."""

    name: AdapterName
    private: bool = False


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One entry of an alias's history: ``None`` on a side means it did not, or does not, exist."""

    alias: str
    before: int | None
    after: int | None
    at: str
    actor: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One mutation: ``body`` is what happened, ``hash`` chains it to everything before it."""

    sequence: int
    at: str
    actor: str
    action: str
    adapter: str | None
    body: Mapping[str, object]
    hash: str
