"""Which versions a version was made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """``parent`` is the digest of a version's manifest; ``kind`` how it was used (``combined-from``, ``continued-from`` …)."""

    parent: str
    kind: str
    weight: float | None = None
    #: The reference the parent was known by when the edge was drawn: for people; the digest is the truth.
    reference: str | None = None

    def document(self) -> dict[str, str | float | None]:
        return {"parent": self.parent, "kind": self.kind, "weight": self.weight, "reference": self.reference}
