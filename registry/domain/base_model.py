"""The frozen checkpoint an adapter belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BaseModelId:
    """``id`` is the canonical repository (None if nobody can know), ``raw`` what the adapter's config said, verbatim.

    ``revision`` is the base's, not the adapter's. ``fingerprint`` is the digest of the base's shape table, once known.
    """

    id: str | None
    revision: str | None = None
    raw: str | None = None
    fingerprint: str | None = None

    def document(self) -> dict[str, str | None]:
        return {"id": self.id, "revision": self.revision, "raw": self.raw, "fingerprint": self.fingerprint}
