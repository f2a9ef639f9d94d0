"""A copy of an adapter is the adapter: the delta of every target to rounding, every other tensor byte for byte.

What is compared was read back from the disk, with the scalings that its own config gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from registry.checks.repair import Repair
from registry.errors import RejectedError
from registry.formats.adapter_directory import WEIGHTS
from registry.operations.check import CheckedAdapter
from registry.plans.merging import Origin
from registry.plans.results import Equality
from registry.variants.lora_targets import LoraDelta, deltas


class Workshop(Protocol):
    """What :mod:`registry.transforms.export` does with tensors."""

    def rewrite(self, source: Path, repair: Repair, into: Path) -> bool: ...
    def equalities(
        self, source: Path, copy: Path, pairs: Iterable[tuple[str, LoraDelta, LoraDelta]]
    ) -> Iterable[Equality]: ...
    def different(self, source: Path, copy: Path, names: Iterable[tuple[str, str]]) -> list[str]: ...
    def same_numbers(self, one: Origin, other: Origin, *, transposed: bool = False) -> bool: ...


def proven(
    before: CheckedAdapter, after: CheckedAdapter, repair: Repair, directory: Path, copy: Path, tools: Workshop
) -> float:
    """The largest error of any target's delta, relative to its norm. Raises RejectedError if the copy is not
    equal, which would be a mistake of this program or numbers beyond what a float can hold."""
    source, target = directory / WEIGHTS, copy / WEIGHTS
    pairs = _paired(before, after)
    whole = [(row.source.name, row.spec.name) for row in repair.tensors if not row.is_factor]
    found = list(tools.equalities(source, target, pairs))
    wrong = [one.path for one in found if not one.holds] + tools.different(source, target, whole)
    if before.manifest.peft_type == "LORA":
        wrong += sorted({one.path for one in before.manifest.targets} ^ {one.path for one in after.manifest.targets})
    if wrong:
        raise RejectedError(
            f"{before.name}: the copy is not equal to the original in {wrong[0]}, so it was not kept",
            code="not-equal",
            hint="report this with the adapter's config; merging the adapter is the way out meanwhile",
        )
    return max((one.error for one in found), default=0.0)


def _paired(before: CheckedAdapter, after: CheckedAdapter) -> list[tuple[str, LoraDelta, LoraDelta]]:
    """Scalings that nobody can know are equal where the config says the same about them."""
    if before.manifest.peft_type != "LORA":
        return []
    fields = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
    same = all(before.config.raw.get(field) == after.config.raw.get(field) for field in fields)
    theirs = _deltas(after)
    return [
        (path, one, theirs[path]._replace(scaling=one.scaling) if same else theirs[path])
        for path, one in _deltas(before).items()
        if path in theirs
    ]


def _deltas(adapter: CheckedAdapter) -> Mapping[str, LoraDelta]:
    return deltas(adapter.config, adapter.manifest)
