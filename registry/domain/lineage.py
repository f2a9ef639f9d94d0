"""Which versions a version was made from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from numbers import Real

from registry.domain.digest import Digest
from registry.errors import InvalidNameError, InvalidValueError

_MAX_KIND, _MAX_REFERENCE = 60, 4096


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """``parent`` is the digest of a version's manifest; ``kind`` how it was used (``combined-from``, ``continued-from`` …). Raises
    InvalidNameError for a parent, kind, weight or reference that cannot be one."""

    parent: str
    kind: str
    weight: float | None = None
    #: The reference the parent was known by when the edge was drawn: for people; the digest is the truth.
    reference: str | None = None

    def __post_init__(self) -> None:
        Digest(self.parent)
        if not self.kind.isprintable() or len(self.kind) > _MAX_KIND:
            raise InvalidNameError("kind of lineage", self.kind, f"one printable line of up to {_MAX_KIND} characters")
        if self.weight is not None and (type(self.weight) not in (int, float) or not isfinite(self.weight)):
            raise _no_weight(self.weight)
        if self.reference is not None and len(self.reference) > _MAX_REFERENCE:
            raise InvalidNameError("name of a parent", self.reference, f"up to {_MAX_REFERENCE} characters")

    def document(self) -> dict[str, str | float | None]:
        return {"parent": self.parent, "kind": self.kind, "weight": self.weight, "reference": self.reference}


def finite_weight(value: object) -> float:
    """A number of any library's as Python's. Raises InvalidValueError."""
    try:
        weight = float(value) if isinstance(value, Real) else nan
    except OverflowError:
        weight = nan
    if not isfinite(weight):
        raise _no_weight(value)
    return weight


def _no_weight(value: object) -> InvalidValueError:
    return InvalidValueError("weight", str(value), "a finite number, such as 0.7")


def parse_parent(text: str) -> tuple[str, float | None]:
    """A reference, with a weight behind if it matters: ``my-lora@3*0.5`` or ``my-lora@3=0.5``. Raises InvalidNameError."""
    reference, mark, behind = text.replace("=", "*").partition("*")
    if not mark:
        return reference, None
    try:
        weight = float(behind)
    except ValueError:
        weight = nan
    if not isfinite(weight):
        raise InvalidNameError("parent", text, "REF or REF*WEIGHT with a finite weight, such as my-lora@3*0.5")
    return reference, weight
