"""An alias moves if the gate holds, all of it in one write transaction: nobody moves the alias or adds a score between.

1. Resolve the candidate, and what the alias points at now.
2. Hold the gate against the scores as they are in this transaction.
3. If it holds, move the alias from exactly there, and keep in the audit what held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from registry.catalog.protocol import ANYTHING, Anything, Catalog
from registry.domain.gate import Gate, Outcome
from registry.domain.names import AliasName, Reference
from registry.errors import AliasMovedError, RejectedError
from registry.operations.gate import gate


@dataclass(frozen=True, slots=True)
class Promotion:
    """Where the alias pointed and points; the same if the gate is closed or if nothing had to move."""

    outcome: Outcome
    adapter: str
    alias: str
    before: int | None
    after: int | None

    @property
    def moved(self) -> bool:
        return self.before != self.after

    def document(self) -> dict[str, object]:
        moves = {"alias": self.alias, "before": self.before, "after": self.after, "moved": self.moved}
        return {**self.outcome.document(), **moves}


def promote(
    reference: Reference,
    alias: AliasName,
    wanted: Gate,
    *,
    namespace: str,
    catalog: Catalog,
    expected: int | Anything | None = ANYTHING,
) -> Promotion:
    """A closed gate is an answer, not an exception: see :attr:`Outcome.failure`. Without ``against`` the candidate is held
    against what the alias points at.

    Raises AliasMovedError, NotFoundError, RejectedError for a candidate that is yanked.
    """
    if wanted.against is None:
        wanted = replace(wanted, against=str(alias))
    catalog.resolve(reference)  # what is not there makes no registry
    with catalog.writing() as writer:
        candidate = writer.resolve(reference)  # 1
        if candidate.yanked is not None:
            raise RejectedError(
                f"{candidate.reference} is yanked: {candidate.yanked}",
                code="version-yanked",
                hint="promote another version, or take the yank back if it is good again: adapters unyank",
            )
        adapter = candidate.adapter
        pointing = {AliasName(name).key: number for name, number in writer.aliases(adapter).items()}
        before = pointing.get(alias.key)
        if expected is not ANYTHING and expected != before:
            raise AliasMovedError(f"{adapter}:{alias}", expected=expected, actual=before)
        exactly = Reference(adapter, number=candidate.number)
        outcome = gate(exactly, wanted, namespace=namespace, catalog=writer, moving=alias)  # 2
        if not outcome.holds:
            return Promotion(outcome, str(adapter), str(alias), before, before)
        writer.move_alias(adapter, alias, candidate.number, expected=before, gate=outcome.facts())  # 3
        return Promotion(outcome, str(adapter), str(alias), before, candidate.number)
