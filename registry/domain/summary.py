"""What a list shows of a version: its manifest without the tables, and the base as it was known when it was pushed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from registry.domain.base_model import BaseModelId
from registry.domain.manifest import Manifest


@dataclass(frozen=True, slots=True)
class RecordedBase(BaseModelId):
    """``weights_fingerprint`` is that of the numbers which the base had in this registry, None if they were not known."""

    weights_fingerprint: str | None = None

    def document(self) -> dict[str, str | None]:
        known = BaseModelId.document(self)
        return known if self.weights_fingerprint is None else known | {"weights_fingerprint": self.weights_fingerprint}


@dataclass(frozen=True, slots=True)
class Summary:
    """See :class:`~registry.domain.manifest.Manifest`. Nothing is known where the manifest is gone."""

    base_model: RecordedBase = RecordedBase(None)
    peft_type: str | None = None
    variant: str | None = None
    task_type: str | None = None
    rank: int | None = None
    alpha: float | None = None
    scaling: float | None = None
    target_modules: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    dtype: str | None = None
    parameters: int = 0
    bytes: int = 0
    tensor_identity: str | None = None
    base_change: str | None = None

    def document(self) -> dict[str, object]:
        return asdict(self) | {
            "base_model": self.base_model.document(),
            "target_modules": list(self.target_modules),
            "layers": list(self.layers),
        }


def summary_of(
    manifest: Manifest, *, fingerprint: str | None = None, weights_fingerprint: str | None = None
) -> Summary:
    """With the fingerprints of the base as it was known then."""
    base = manifest.base_model
    return Summary(
        base_model=RecordedBase(base.id, base.revision, base.raw, fingerprint, weights_fingerprint),
        peft_type=manifest.peft_type,
        variant=manifest.variant,
        task_type=manifest.task_type,
        rank=manifest.rank,
        alpha=manifest.alpha,
        scaling=manifest.scaling,
        target_modules=tuple(manifest.target_modules),
        layers=tuple(manifest.layers),
        dtype=manifest.dtype,
        parameters=manifest.parameters,
        bytes=manifest.bytes,
        tensor_identity=manifest.tensor_identity,
        base_change=manifest.base_change,
    )


def read_summary(document: Mapping[str, Any]) -> Summary:
    """What :meth:`Summary.document` wrote. Raises TypeError for what it did not."""
    lists = {name: tuple(document[name]) for name in ("target_modules", "layers") if name in document}
    base = {"base_model": RecordedBase(**document["base_model"])} if "base_model" in document else {}
    return Summary(**{**document, **lists, **base})
