"""What the workshop answers: of each target or tensor, in plain numbers, what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """One target of a combination. ``rank`` is that of its factors, which zeros fill up where targets have one rank in common.
    ``norm`` is ‖Δ‖ of the exact sum. Relative to it are ``discarded``, the part that the truncation leaves away, and ``error``,
    how far what is stored is from the sum, once that was measured; in Frobenius norms."""

    path: str
    rank: int
    exact_rank: int
    norm: float
    discarded: float
    error: float = 0.0

    @property
    def lost(self) -> float:
        """What the truncation leaves away, itself."""
        return self.discarded * self.norm

    def document(self) -> dict[str, object]:
        return {
            "path": self.path,
            "rank": self.rank,
            "exact_rank": self.exact_rank,
            "norm": self.norm,
            "discarded": self.discarded,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Extracted:
    """One tensor of a fine-tune that changed. ``rank`` is None where it is saved whole, with the module ``saved``. ``norm`` is
    ‖M − B‖, ``error`` what of it the stored factors miss."""

    path: str
    tail: str
    rank: int | None
    norm: float
    error: float
    bare: bool = False
    saved: str | None = None


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The delta of one target: ``values`` are its singular values from large to small, ``norm`` is ‖Δ‖, ``effective_rank`` how
    many directions count, ``sufficient_rank`` the smallest that keeps 99 % of Σσ²."""

    path: str
    rank: int
    scaling: float
    values: tuple[float, ...]
    norm: float
    effective_rank: float
    sufficient_rank: int


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two deltas of one target: their cosine ⟨Δ, Δ'⟩ / ‖Δ‖‖Δ'‖, both norms, and the cosines of the principal angles between the
    spaces that they write to."""

    path: str
    inner: float
    norm: float
    other_norm: float
    angles: tuple[float, ...]

    @property
    def cosine(self) -> float:
        size = self.norm * self.other_norm
        return self.inner / size if size else 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One tensor that a merge changed. ``largest`` and ``typical`` (the median) are errors in ulps; ``beyond`` is the largest part
    of one that the rounding to the stored type does not explain, in units of float32's last place at the largest number of its
    row; norms are Frobenius norms of the change in the rows that were looked at."""

    name: str
    elements: int
    looked_at: int
    changed: int
    largest: float
    typical: float
    beyond: float
    expected_norm: float
    found_norm: float


@dataclass(frozen=True, slots=True)
class Equality:
    """The delta of one target, before and after: ``error`` relative to its norm, ``allowed`` what the rounding of B to the
    type it is stored in can amount to."""

    path: str
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed
