"""Is a checkpoint the merge that it is said to be?

1. Read base and adapters, and plan the merge again.
2. Every tensor of the plan is there under its name, with its type and shape, and nothing else is.
3. Tensors that were not to change are the base's bytes; those that were are the float64 sum, rounded.
4. The config is the base's but for what the merge changes, and nothing lies beside it that a loader might take up; modules
   of an embedder are the base's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

from registry.domain.checkpoint import Checkpoint, Shard
from registry.errors import RejectedError
from registry.formats import model_config
from registry.operations.know_base import read_checkpoint, read_shard
from registry.operations.module_folders import folder_differences
from registry.operations.verify_files import config_differences, stray_files
from registry.plans.merging import FLOATS, MergePlan
from registry.plans.results import Compared
from registry.variants.findings import some

if TYPE_CHECKING:
    from registry.operations.bases import Shelf
    from registry.operations.merge_prepare import MergeRequest, Workshop

#: Pieces of each tensor that a sample looks at.
SAMPLES = 3
#: float32 arithmetic before the one rounding, in units of the last place of float32 at the largest number of the row: what a
#: sum of some hundred products and the norm of a DoRA layer cost at most.
_ARITHMETIC = 64.0


@dataclass(frozen=True, slots=True)
class Verification:
    """``largest_ulps`` and ``typical_ulps`` are errors of stored elements, 0.5 being one rounding. ``wrong`` are the tensors with
    larger ones than float32 arithmetic explains, ``altered`` those that should be the base's bytes and are not. Of the
    ``changed_tensors`` some are only ``converted`` to another type: no adapter is about them."""

    sampled: bool
    changed_tensors: int
    copied_tensors: int
    elements: int
    looked_at: int
    changed_share: float
    largest_ulps: float
    typical_ulps: float
    expected_norm: float
    found_norm: float
    wrong: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    #: Keys of the config that are not what they should be, and files that no merge writes.
    config: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()
    converted_tensors: int = 0
    #: Files of the base's modules that are missing or others.
    modules: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        tensors = self.wrong or self.altered or self.missing or self.unexpected
        return not (tensors or self.config or self.stray or self.modules)

    def document(self) -> dict[str, object]:
        """``verify --json``. Keys are only ever added."""
        return {
            "sound": self.is_sound,
            "sampled": self.sampled,
            "tensors": {
                "changed": self.changed_tensors,
                "copied": self.copied_tensors,
                "converted": self.converted_tensors,
            },
            "elements": {"changed_tensors": self.elements, "looked_at": self.looked_at},
            "changed_fraction": self.changed_share,
            "error_ulps": {"largest": self.largest_ulps, "typical": self.typical_ulps},
            "delta_norm": {"expected": self.expected_norm, "found": self.found_norm},
            "wrong": list(self.wrong),
            "altered": list(self.altered),
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "config": list(self.config),
            "stray": list(self.stray),
            "modules": list(self.modules),
        }

    def sentence(self) -> str:
        which = "every number of a sample" if self.sampled else "every number"
        converted = f"{self.converted_tensors:,} converted to another type, " if self.converted_tensors else ""
        return (
            f"proven: {which} that was changed is the correctly rounded one, up to the order of summation "
            f"({self.changed_tensors - self.converted_tensors:,} tensors changed, {converted}"
            f"{self.copied_tensors:,} the base's byte for byte)"
        )

    def figures(self) -> str:
        """For whoever wants to know how near: an ulp of a small number is nothing beside the numbers that it is the sum of."""
        return (
            f"{self.looked_at:,} of {self.elements:,} elements were held against the sum in float64; {self.changed_share:.1%} "
            f"of them differ from the base; ‖Δ‖ is {self.found_norm:.6g}, expected {self.expected_norm:.6g}; the typical error "
            f"is {self.typical_ulps:.3f} ulp (one rounding: at most 0.5), the largest {self.largest_ulps:.3f}, where large "
            f"terms of a sum leave a small one"
        )

    def require_sound(self, what: str) -> None:
        """Raises RejectedError, with everything that is wrong."""
        if self.is_sound:
            return
        parts = {
            "are not the sum": self.wrong,
            "should be the base's and are not": self.altered,
            "are missing": self.missing,
            "should not be there": self.unexpected,
        }
        said = [f"{some(names)} {what_is}" for what_is, names in parts.items() if names]
        said += [f"in {model_config.NAME}: {', '.join(self.config)}"] if self.config else []
        said += [some(self.modules)] if self.modules else []
        said += [f"beside the weights lies what no merge writes: {some(self.stray)}"] if self.stray else []
        raise RejectedError(
            f"{what} is not this merge: {'; '.join(said)}",
            code="not-verified",
            hint="check that base, adapters, weights and options are those it was made of, or merge again",
        )


def verify(
    output: Path, request: MergeRequest, *, samples: int | None, shelf: Shelf, workshop: Callable[[], Workshop]
) -> Verification:
    """``samples`` is how many pieces of each tensor are looked at, None for every element. Raises NotFoundError and
    InvalidInputError for what cannot be read."""
    from registry.operations.merge_prepare import prepare

    found = read_checkpoint(output)
    with prepare(request, shelf=shelf, workshop=workshop, stored_as=partial(_stored_as, found)) as made:
        return replace(
            _verified(made.plan, found, samples, workshop()),
            config=config_differences(made.plan, made.base, found),
            stray=stray_files(found),
            modules=folder_differences(made.base.directory, found.directory),
        )


def verify_plan(plan: MergePlan, output: Path, *, workshop: Workshop) -> Verification:
    """The sampled form, of files that were just written."""
    shards = tuple(read_shard(output / shard.name) for shard in plan.shards)
    return _verified(plan, Checkpoint(output, {}, shards), SAMPLES, workshop)


def _verified(plan: MergePlan, found: Checkpoint, samples: int | None, workshop: Workshop) -> Verification:
    places: dict[str, Shard] = {spec.name: shard for shard, spec in found}
    there = {spec.name: (spec.dtype, spec.shape) for _, spec in found}
    wanted = {one.name: (one.dtype, one.shape) for one in plan.tensors}
    misfit = tuple(name for name, form in wanted.items() if there.get(name, form) != form)
    missing = tuple(name for name in wanted if name not in there)
    sound = replace(
        plan,
        shards=tuple(
            replace(shard, tensors=tuple(one for one in shard.tensors if one.name not in {*misfit, *missing}))
            for shard in plan.shards
        ),
    )
    compared: list[Compared] = []
    altered: list[str] = []
    for one in workshop.compare(sound, places, samples=samples):
        if isinstance(one, tuple):
            altered += [] if one[1] else [one[0].name]
        else:
            compared.append(one)
    looked_at = sum(one.looked_at for one in compared)
    touched = {one.name for one in plan.changed}
    return Verification(
        sampled=samples is not None,
        changed_tensors=len(compared),
        copied_tensors=len(sound.tensors) - len(compared),
        elements=sum(one.elements for one in compared),
        looked_at=looked_at,
        changed_share=sum(one.changed for one in compared) / looked_at if looked_at else 0.0,
        largest_ulps=max((one.largest for one in compared), default=0.0),
        typical_ulps=sorted(one.typical for one in compared)[len(compared) // 2] if compared else 0.0,
        expected_norm=hypot(*(one.expected_norm for one in compared)),
        found_norm=hypot(*(one.found_norm for one in compared)),
        wrong=(*misfit, *(one.name for one in compared if not one.beyond <= _ARITHMETIC)),
        altered=tuple(altered),
        missing=missing,
        unexpected=tuple(name for name in there if name not in wanted),
        converted_tensors=sum(one.name not in touched for one in compared),
    )


def _stored_as(found: Checkpoint, base: Checkpoint) -> str | None:
    """The type that the output was cast to, if it was: all its floating tensors have one that base tensors have not."""
    kinds = {spec.dtype for _, spec in found if spec.dtype in FLOATS}
    own = {spec.dtype for _, spec in base if spec.dtype in FLOATS}
    return next(iter(kinds)) if len(kinds) == 1 and kinds != own else None
