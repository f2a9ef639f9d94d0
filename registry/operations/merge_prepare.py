"""Everything that is known of a merge before a byte is written.

1. Find the base's files and the adapters', and read what they are.
2. Ask the rules about each adapter and this base; what they call an error is not merged.
3. Plan every tensor of the output, or say all reasons why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from registry.disk import path_of
from registry.domain.base_model import BaseModelId, BaseModelSpec
from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.names import Reference
from registry.errors import (
    DefectiveAdapterError,
    InvalidInputError,
    NotFoundError,
    RejectedError,
    UnmergeableError,
)
from registry.formats import model_config
from registry.formats.adapter_directory import WEIGHTS
from registry.operations.base_view import AS_STORED, seen
from registry.operations.bases import CheckedBase, Shelf, is_path
from registry.operations.check import CheckedAdapter, check
from registry.operations.ingredients import base_directory, find_adapter, temporary
from registry.operations.know_base import read_checkpoint, read_shard, spec_of, weights_fingerprint
from registry.operations.merge_card import Recipe, Share
from registry.operations.module_folders import objections
from registry.plans.combining import Blend
from registry.plans.merge_draft import Ingredient
from registry.plans.merge_plan import MergeOptions, plan_merge
from registry.plans.merge_refusals import PARTIAL
from registry.plans.merge_views import with_views
from registry.plans.merging import MergePlan, PlannedTensor, SameNumbers
from registry.plans.results import Compared

Progress = Callable[[int], None]


class WriteMerged(Protocol):
    def __call__(
        self, plan: MergePlan, into: Path, *, device: str, finished: Collection[str], progress: Progress
    ) -> None: ...


class Compare(Protocol):
    def __call__(
        self, plan: MergePlan, output: Mapping[str, Shard], *, samples: int | None
    ) -> Iterator[Compared | tuple[PlannedTensor, bool]]: ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """What :mod:`registry.transforms` does with tensors, handed in by whoever calls, since it needs torch."""

    write_merged: WriteMerged
    same_numbers: SameNumbers
    compare: Compare
    peak_memory: Callable[[MergePlan, str], int]


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """``adapters`` are directories or references, each with its weight. ``allow`` names rules whose errors are accepted."""

    base: str
    adapters: Sequence[tuple[Path | Reference | str, float]]
    options: MergeOptions = field(default_factory=MergeOptions)
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before a byte is written."""

    base: Checkpoint
    identity: CheckedBase
    adapters: tuple[Ingredient, ...]
    directories: tuple[Path, ...]
    plan: MergePlan
    findings: tuple[Finding, ...]
    recipe: Recipe
    #: An estimate, in bytes.
    peak_memory: int

    def document(self) -> dict[str, object]:
        """``merge --plan --json``. Keys are only ever added."""
        plan = self.plan
        return {
            "base": self.identity.document(),
            "base_view": self.recipe.options.get("base_view", AS_STORED),
            "adapters": [share.document() for share in self.recipe.shares],
            "tensors": {
                "total": len(plan.tensors),
                "changed": len(plan.changed),
                "copied": sum(one.is_copy for one in plan.tensors),
                "seen_as_nf4": sum(one.origin.is_seen for one in plan.tensors),
            },
            "bytes": {
                "total": plan.bytes,
                "changed": sum(one.bytes for one in plan.changed),
                "copied": sum(one.bytes for one in plan.tensors if one.is_copy),
            },
            "files": [{"name": shard.name, "bytes": shard.bytes} for shard in plan.shards],
            "config_changed": plan.config is not None,
            "peak_memory": self.peak_memory,
            "findings": [finding.document() for finding in self.findings],
        }


@contextmanager
def prepare(
    request: MergeRequest,
    *,
    shelf: Shelf,
    workshop: Callable[[], Workshop],
    stored_as: Callable[[Checkpoint], str | None] = lambda _base: None,
) -> Iterator[Prepared]:
    """What was fetched is there as long as the block lasts. ``workshop`` is called once there is something to plan, and
    ``stored_as`` for the type of the output where the request names none.

    Raises NotFoundError, InvalidInputError for damage, and RejectedError with all reasons against the merge.
    """
    with temporary() as work:
        directory, identity = base_directory(request.base, shelf, work)  # 1
        stored = read_checkpoint(directory)
        _require_config(stored)
        if request.options.dtype is None:
            request = replace(request, options=replace(request.options, dtype=stored_as(stored)))
        found = [
            find_adapter(subject, work / str(number), shelf) for number, (subject, _) in enumerate(request.adapters)
        ]
        spec = spec_of(identity.id, model_config.ModelConfig(stored.config), [spec for _, spec in stored])
        spec = _recognised(spec, stored, [one.adapter for one in found], shelf)
        identity = replace(identity, id=spec.id)
        base, spec = seen(stored, spec, request.options.base_view)
        spec, views = with_views(spec)
        identity = replace(identity, id=replace(identity.id, fingerprint=spec.fingerprint), spec=spec)
        adapters: list[Ingredient] = []
        directories: list[Path] = []
        findings: list[Finding] = [*_around(stored, request.base)]
        own_weights = spec.weights_fingerprint  # reads every byte, so once, and only where one is recorded
        for number, (one, (_, weight)) in enumerate(zip(found, request.adapters, strict=True)):
            place, checked = one.directory, one.adapter
            if one.base_weights is not None:  # the bytes say whose they are, whatever the directory is called
                own_weights = own_weights or weights_fingerprint(stored.shards)
                _require_weights(one.base_weights, own_weights, stored, checked)
                recorded = checked.manifest.base_model
                own = replace(identity.id, id=recorded.id, revision=recorded.revision)
                identity = replace(identity, id=own, spec=replace(spec, id=own))
            findings += _findings(checked, identity, request.options, shelf)  # 2
            weights = read_shard(place / WEIGHTS)
            adapters.append(Ingredient(number, checked.name, checked.manifest, checked.config, weights, weight, spec))
            directories.append(place)
        tools = workshop()
        plan, problems = plan_merge(base, spec, adapters, request.options, tools.same_numbers, views)  # 3
        if problems:
            raise UnmergeableError(", ".join(one.name for one in adapters), problems)
        yield Prepared(
            base=base,
            identity=identity,
            adapters=tuple(adapters),
            directories=tuple(directories),
            plan=plan,
            findings=tuple(dict.fromkeys(findings)),
            recipe=_recipe(request, identity, adapters),
            peak_memory=tools.peak_memory(plan, request.device),
        )


def _require_config(base: Checkpoint) -> None:
    """What is not in the weights: whether the output is tied to the embedding, and which layers are stored transposed. A
    merge that guessed would be wrong without a word, and its output loads no better than such a base."""
    if not (base.directory / model_config.NAME).exists():
        raise NotFoundError(
            f"{base.directory} has no {model_config.NAME}, which tells tied embeddings and transposed layers",
            code="no-config",
            hint=f"get it from where the weights come from; for a model that has none of its own, write {{}} into "
            f"{model_config.NAME}",
        )


def _around(base: Checkpoint, name: str) -> Sequence[Finding]:
    found = [*objections(base.directory)]
    errors = [one for one in found if one.severity is Severity.ERROR]
    if errors:
        raise UnmergeableError(name, errors)
    return found


def _recognised(
    spec: BaseModelSpec, base: Checkpoint, adapters: Sequence[CheckedAdapter], shelf: Shelf
) -> BaseModelSpec:
    """A checkpoint without a name that has the very weights of a base in the registry is that base."""
    if spec.id.id is not None or not shelf.has_hashed(spec.fingerprint):
        return spec
    weights = weights_fingerprint(base.shards)
    says = [one.manifest.base_model.id for one in adapters]
    known = shelf.with_weights(spec.fingerprint, weights, says)
    if known is None:
        return spec
    own = replace(spec.id, id=known.id, revision=known.revision)
    return replace(spec, id=own, weights_fingerprint=weights)


def _require_weights(recorded: Digest, found: Digest, base: Checkpoint, adapter: CheckedAdapter) -> None:
    """The base's bytes are those that were recorded of the base that the adapter belongs to."""
    if found != recorded:
        raise RejectedError(
            f"{adapter.name} belongs to {adapter.manifest.base_model.id} with weights {recorded}, and those in "
            f"{base.directory} are {found}",
            code="wrong-base",
            hint="merge into the base it was trained on; `adapters base show` tells which that is",
        )


def _findings(adapter: CheckedAdapter, base: CheckedBase, options: MergeOptions, shelf: Shelf) -> tuple[Finding, ...]:
    verdict = check(adapter, base, allow=set(options.allow) - {"partial"})
    errors = [one for one in verdict.findings if one.severity is Severity.ERROR]
    partial = [one for one in verdict.findings if one.rule in PARTIAL or _is_lost(one, adapter, base)]
    if "partial" in options.allow:
        errors = [one for one in errors if one.rule not in PARTIAL]
    else:
        errors += [
            replace(one, severity=Severity.ERROR, fix=f"{one.fix}; or merge what there is: --allow partial")
            for one in partial
            if one not in errors
        ]
    if errors and verdict.failure is not None and issubclass(verdict.failure, InvalidInputError):
        raise DefectiveAdapterError(adapter.name, errors)
    if errors:
        raise UnmergeableError(adapter.name, errors)
    return tuple(one for one in verdict.findings if one.rule != "nothing-to-allow" or one.where != "base-id")


def _is_lost(finding: Finding, adapter: CheckedAdapter, base: CheckedBase) -> bool:
    """A target that the config names and no tensor has, if the base has it; other names are only never met."""
    modules = base.spec.modules if finding.rule == "absent-target" and base.spec is not None else ()
    return any(module.path.endswith(f".{name}") for name in adapter.manifest.absent_targets for module in modules)


def _shown(name: str) -> str:
    """A directory by its own name: where it lies is nobody else's business."""
    return path_of(name).absolute().name if is_path(name) else name


def _base_on_record(base: BaseModelId, adapters: Sequence[Ingredient]) -> BaseModelId:
    """Without a path of this machine; a checkpoint that nothing else names is called what all its adapters call their base."""
    if base.raw is None or not is_path(base.raw):
        return base
    if base.id is not None:
        return replace(base, raw=base.id)
    said = [one.manifest.base_model for one in adapters]
    ids = {one.id.lower() if one.id is not None else None for one in said}
    revisions = {one.revision for one in said}
    if len(ids) > 1:
        return replace(base, raw=None)
    return replace(base, id=said[0].id, revision=said[0].revision if len(revisions) == 1 else None, raw=said[0].id)


def _blend(blend: Blend) -> dict[str, object]:
    return {} if blend.is_linear else {"combined_by": blend.method, **blend.options}


def _recipe(request: MergeRequest, base: CheckedBase, adapters: Sequence[Ingredient]) -> Recipe:
    proven = base.id.id is not None and all(
        one.manifest.base_model.id is not None and one.manifest.base_model.id == base.id.id for one in adapters
    )
    return Recipe(
        base=_base_on_record(base.id, adapters),
        shares=tuple(
            Share(_shown(one.name), one.manifest.digest, one.weight, one.manifest.variant, one.manifest.rank)
            for one in adapters
        ),
        dtype=request.options.dtype,
        options={
            key: value
            for key, value in {
                "embeddings": request.options.embeddings,
                "expert_layout": request.options.packing,
                "base_view": request.options.base_view if request.options.base_view != AS_STORED else None,
                "base_is_residual": request.options.base_is_residual or None,
                **_blend(request.options.blend),
                "allow": sorted(request.options.allow) or None,
            }.items()
            if value is not None
        },
        is_proven=proven,
    )
