"""The model card of a merged checkpoint: what it was made of, how, and what was shown about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest

if TYPE_CHECKING:
    from registry.operations.verify import Verification


@dataclass(frozen=True, slots=True)
class Share:
    """One adapter of a merge. ``digest`` is that of its manifest: the version, or what a push of it would be."""

    name: str
    digest: Digest
    weight: float
    variant: str
    rank: int | None

    def document(self) -> dict[str, object]:
        return {
            "name": self.name,
            "digest": self.digest,
            "weight": self.weight,
            "variant": self.variant,
            "rank": self.rank,
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """``options`` are those that change the result. ``is_proven`` where base and adapters name the same base."""

    base: BaseModelId
    shares: Sequence[Share]
    dtype: str | None
    options: Mapping[str, object]
    is_proven: bool

    @property
    def identity(self) -> str:
        return "named alike" if self.is_proven else "not proven"

    def document(self) -> dict[str, object]:
        return {
            "base": self.base.document(),
            "adapters": [share.document() for share in self.shares],
            "dtype": self.dtype,
            "options": dict(self.options),
            "base_identity": self.identity,
        }


def card(recipe: Recipe, verification: Verification) -> str:
    """``README.md``; its front matter is what the Hub reads of a merge."""
    front: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "lora", "adapter-registry"]}
    if recipe.base.id is not None:
        front = {"base_model": [recipe.base.id], "base_model_relation": "merge", **front}
    base = _plain(recipe.base.id or recipe.base.raw or "a local checkpoint")
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()),
        "---",
        "",
        "# Merged model",
        "",
        f"The weights of {base}{f' at {recipe.base.revision}' if recipe.base.revision else ''}, with these adapters folded in:",
        "",
        "| adapter | weight | method | rank | manifest |",
        "|---|---:|---|---:|---|",
        *(
            f"| {_plain(one.name)} | {one.weight:g} | {one.variant} | {one.rank or ''} | `{one.digest}` |"
            for one in recipe.shares
        ),
        "",
        f"* structure of the base: `{recipe.base.fingerprint}`",
        "* base identity: "
        + (
            "base and adapters name the same model"
            if recipe.is_proven
            else "not proven; names, where there are any, and shapes were compared"
        ),
        f"* stored as: {recipe.dtype or 'the types of the base'}",
        *(f"* {key.replace('_', ' ')}: {value}" for key, value in recipe.options.items()),
        "",
        "The sum was computed in float32 and rounded once.",
        "",
        "## Verification",
        "",
        f"{verification.sentence().capitalize()}.",
        "",
        f"{verification.figures()}.",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Nothing that Markdown would take for more than text."""
    return "".join(char if char.isalnum() or char in "._-/@: +" else " " for char in text)
