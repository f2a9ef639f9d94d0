"""A base and adapters become a checkpoint that is complete and proven, or nothing appears.

1. Find the base's files and the adapters', and read what they are.
2. Ask the rules about each adapter and this base; what they call an error is not merged.
3. Plan every tensor of the output, or say all reasons why there is none. Look whether there is room.
4. Write the weights, through the workshop, beside the wanted place.
5. Read a sample of them back, and hold it against the same sum in float64.
6. Write config, tokenizer, card, and the index last; only then it is renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from registry.domain.checkpoint import Checkpoint, Shard
from registry.domain.digest import Digest
from registry.domain.finding import Finding, Severity
from registry.domain.names import AdapterName, Reference
from registry.domain.version import Version
from registry.errors import (
    DefectiveAdapterError,
    InvalidInputError,
    NotFoundError,
    RejectedError,
    UnavailableError,
    UnmergeableError,
)
from registry.formats import model_config, shard_index
from registry.formats.adapter_directory import CONFIG, TOKENIZER, WEIGHTS, Disposition, disposition
from registry.formats.base_model_text import is_repository
from registry.operations.base_view import AS_STORED, seen
from registry.operations.bases import CheckedBase, Shelf, is_path, repository_and_revision
from registry.operations.check import CheckedAdapter, adapter_in, check, require_adapter, under_alias
from registry.operations.fetch import fetch
from registry.operations.know_base import read_checkpoint, read_shard, spec_of, weights_fingerprint
from registry.operations.manifests import manifest_of
from registry.operations.merge_card import Recipe, Share, card
from registry.operations.workplace import Workplace, workplace
from registry.plans.merge_draft import Ingredient
from registry.plans.merge_plan import MergeOptions, SameNumbers, plan_merge
from registry.plans.merge_views import with_views
from registry.plans.merging import MergePlan

if TYPE_CHECKING:
    from registry.operations.verify import Verification

Progress = Callable[[int], None]

#: Findings of the rules that say a part of the adapter is missing; a merge makes errors of them.
_PARTIAL = frozenset({"layer-without-tensors", "orphan-factor"})


class WriteMerged(Protocol):
    def __call__(
        self, plan: MergePlan, into: Path, *, device: str, finished: Collection[str], progress: Progress
    ) -> None: ...


class Compare(Protocol):
    def __call__(self, plan: MergePlan, output: Mapping[str, Shard], *, samples: int | None) -> Iterator[Any]: ...


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


@dataclass(frozen=True, slots=True)
class Merged:
    directory: str
    prepared: Prepared
    verification: Verification
    version: Version | None = None

    def document(self) -> dict[str, object]:
        """``merge --json``. Keys are only ever added."""
        return {
            "directory": self.directory,
            **self.prepared.document(),
            "verification": self.verification.document(),
            "version": self.version.reference if self.version is not None else None,
        }


@contextmanager
def prepare(request: MergeRequest, *, shelf: Shelf, workshop: Workshop) -> Iterator[Prepared]:
    """Steps 1 to 3. What was fetched is there as long as the block lasts.

    Raises NotFoundError, InvalidInputError for damage, and RejectedError with all reasons against the merge.
    """
    with TemporaryDirectory(prefix="adapters-") as temporary:
        work = Path(temporary)
        directory, identity = base_directory(request.base, shelf)  # 1
        stored = read_checkpoint(directory)
        spec = spec_of(identity.id, model_config.ModelConfig(stored.config), [spec for _, spec in stored])
        base, spec = seen(stored, spec, request.options.base_view)
        spec, views = with_views(spec)
        identity = replace(identity, spec=spec)
        adapters: list[Ingredient] = []
        directories: list[Path] = []
        findings: list[Finding] = []
        for number, (subject, weight) in enumerate(request.adapters):
            place, checked, fingerprint = _adapter(subject, work / str(number), shelf)
            _require_weights(fingerprint, stored, checked)
            findings += _findings(checked, identity, request.options, shelf)  # 2
            weights = read_shard(place / WEIGHTS)
            adapters.append(Ingredient(number, checked.name, checked.manifest, checked.config, weights, weight, spec))
            directories.append(place)
        plan, problems = plan_merge(base, spec, adapters, request.options, workshop.same_numbers, views)  # 3
        if problems:
            raise UnmergeableError(", ".join(one.name for one in adapters), problems)
        yield Prepared(
            base=base,
            identity=identity,
            adapters=tuple(adapters),
            directories=tuple(directories),
            plan=plan,
            findings=tuple(findings),
            recipe=_recipe(request, identity, adapters),
            peak_memory=workshop.peak_memory(plan, request.device),
        )


def merge(
    request: MergeRequest,
    into: Path,
    *,
    shelf: Shelf,
    workshop: Workshop,
    expect: Progress = lambda _total: None,
    progress: Progress = lambda _count: None,
) -> Merged:
    """``into`` must not exist, or be an empty directory.

    Raises OutputExistsError, NotFoundError, InvalidInputError, RejectedError, UnavailableError; then nothing is there that
    loads, and after an UnavailableError (no space) or an interrupt what was finished waits for ``resume``.
    """
    from registry.operations.verify import verify_plan

    with prepare(request, shelf=shelf, workshop=workshop) as prepared:
        plan = prepared.plan
        with workplace(into, making=_making(prepared, request), resume=request.resume) as work:
            _require_room(plan, work)
            work.keep = True
            expect(sum(shard.bytes for shard in plan.shards if shard.name not in work.finished))
            workshop.write_merged(
                plan, work.directory, device=request.device, finished=work.finished, progress=progress
            )  # 4
            verification = verify_plan(plan, work.directory, workshop=workshop)  # 5
            verification.require_sound(str(into))
            _write_rest(prepared, work.directory, card(prepared.recipe, verification))  # 6
    return Merged(str(into), prepared, verification)


def stored(done: Merged, name: AdapterName, shelf: Shelf) -> Merged:
    """The merged checkpoint as the next version of ``name``; the same content again is the same version."""
    from registry.operations.merged_version import merged_package
    from registry.operations.publish import Submission, publish

    package = merged_package(Path(done.directory), done.prepared, done.verification)
    published = publish([Submission(package, name)], blobs=shelf.blobs, catalog=shelf.catalog)[0]
    return replace(done, version=published.version)


def base_directory(text: str, shelf: Shelf) -> tuple[Path, CheckedBase]:
    """The directory of a checkpoint with its weights: a path, or a Hub repository in the cache or fetched into it."""
    if is_path(text):
        from registry.operations.know_base import know_base

        directory = Path(text).expanduser()
        if not directory.is_dir():
            raise NotFoundError(f"{text} is not a directory", code="no-directory", hint="give the base's checkpoint")
        identity = know_base(directory).id
        return directory, CheckedBase(shelf.same_name(identity))
    if not is_repository(text.removeprefix("hf://").partition("@")[0]):
        raise NotFoundError(
            f"{text} is neither a directory here nor a repository's name",
            code="unknown-base",
            hint="give the base's checkpoint, or hf://OWNER/NAME@REVISION",
        )
    from registry.hub.snapshots import CHECKPOINT, snapshot
    from registry.operations.know_base import know_base

    name, revision = repository_and_revision(text)
    directory = snapshot(name, revision, CHECKPOINT)
    identity = know_base(directory).id
    return directory, CheckedBase(shelf.same_name(replace(identity, raw=text)))


def _adapter(subject: Path | Reference | str, work: Path, shelf: Shelf) -> tuple[Path, CheckedAdapter, Digest | None]:
    """Where its files lie, what it is, and the weights fingerprint of the base it was recorded with."""
    if isinstance(subject, Path):
        if not subject.is_dir():
            raise NotFoundError(
                f"{subject} is not a directory", code="no-directory", hint="give the adapter's directory"
            )
        return subject, under_alias(adapter_in(subject), shelf), None
    if isinstance(subject, str):
        from registry.hub.snapshots import ADAPTER, snapshot

        directory = snapshot(*repository_and_revision(subject), ADAPTER)
        place = work / "adapter"
        shutil.copytree(directory, place)  # the cache's files are links, which an adapter's may not be
        return place, replace(under_alias(adapter_in(place), shelf), name=subject), None
    version = shelf.catalog.resolve(subject)
    require_adapter(version.reference, manifest_of(version.digest, shelf.blobs))
    version, manifest = fetch(subject, work, blobs=shelf.blobs, catalog=shelf.catalog)
    checked = adapter_in(work)
    recorded = replace(checked.manifest, base_model=manifest.base_model, lineage=manifest.lineage)
    found = shelf.named(manifest.base_model.id, manifest.base_model.revision) if manifest.base_model.id else None
    fingerprint = found.spec.weights_fingerprint if found is not None and found.spec is not None else None
    return work, under_alias(replace(checked, name=version.reference, manifest=recorded), shelf), fingerprint


def _require_weights(fingerprint: Digest | None, base: Checkpoint, adapter: CheckedAdapter) -> None:
    """The base's bytes, where the registry recorded them of the base that the adapter belongs to."""
    if fingerprint is not None and weights_fingerprint(base.shards) != fingerprint:
        raise RejectedError(
            f"{adapter.name} belongs to {adapter.manifest.base_model.id}, and the weights in {base.directory} are others",
            code="wrong-base",
            hint="merge into the base it was trained on; `adapters base show` tells which that is",
        )


def _findings(adapter: CheckedAdapter, base: CheckedBase, options: MergeOptions, shelf: Shelf) -> tuple[Finding, ...]:
    verdict = check(adapter, base, allow=options.allow - {"partial"})
    errors = [one for one in verdict.findings if one.severity is Severity.ERROR]
    partial = [one for one in verdict.findings if one.rule in _PARTIAL or _is_lost(one, adapter, base)]
    if "partial" in options.allow:
        errors = [one for one in errors if one.rule not in _PARTIAL]
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


def _recipe(request: MergeRequest, base: CheckedBase, adapters: Sequence[Ingredient]) -> Recipe:
    proven = base.id.id is not None and all(
        one.manifest.base_model.id is not None and one.manifest.base_model.id == base.id.id for one in adapters
    )
    return Recipe(
        base=base.id,
        shares=tuple(
            Share(one.name, one.manifest.digest, one.weight, one.manifest.variant, one.manifest.rank)
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
                "allow": sorted(request.options.allow) or None,
            }.items()
            if value is not None
        },
        is_proven=proven,
    )


def _making(prepared: Prepared, request: MergeRequest) -> str:
    """A digest of all that the bytes depend on: which files of the base, which adapters, what is asked."""
    base = [[shard.name, shard.size, os.stat(shard.path).st_mtime_ns] for shard in prepared.base.shards]
    asked = [[one.manifest.tensor_identity, one.manifest.digest, one.weight] for one in prepared.adapters]
    options = {**prepared.recipe.options, "dtype": request.options.dtype, "files": request.options.max_shard_bytes}
    text = json.dumps([str(prepared.base.directory), base, asked, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_room(plan: MergePlan, work: Workplace) -> None:
    wanted = sum(shard.bytes for shard in plan.shards if shard.name not in work.finished)
    free = shutil.disk_usage(work.directory).free
    if wanted > free:
        raise UnavailableError(
            f"the merged weights need {wanted / 1e9:,.1f} GB, and {work.directory.parent} has {free / 1e9:,.1f} GB",
            code="no-space",
            hint="make room there, or give another -o",
        )


def _write_rest(prepared: Prepared, into: Path, text: str) -> None:
    plan, base = prepared.plan, prepared.base
    tokenizer = prepared.directories[plan.takes_tokenizer_of] if plan.takes_tokenizer_of is not None else None
    taken = {path.name for path in tokenizer.iterdir() if path.name in TOKENIZER} if tokenizer is not None else set()
    replaced = set(TOKENIZER) if taken else set()
    for path in sorted(base.directory.iterdir()):
        if path.name not in replaced and _is_carried(path):
            _copy(path, into / path.name)
    if tokenizer is not None:
        for name in sorted(taken):
            _copy(tokenizer / name, into / name)
    _write(text.encode(), into / "README.md")
    if plan.config is None:
        if (base.directory / model_config.NAME).exists():
            _copy(base.directory / model_config.NAME, into / model_config.NAME)
    else:
        _write(json.dumps(plan.config, indent=2, ensure_ascii=False).encode() + b"\n", into / model_config.NAME)
    if plan.index is not None:
        index = {
            "metadata": {**plan.index, "total_size": plan.bytes},
            "weight_map": {one.name: shard.name for shard in plan.shards for one in shard.tensors},
        }
        _write(json.dumps(index, indent=2).encode() + b"\n", into / shard_index.NAME)


def _is_carried(path: Path) -> bool:
    """What belongs to the model besides weights: no code, no pickles, no other format, and nothing of an adapter."""
    what = disposition(path.name)
    own = path.name in (model_config.NAME, shard_index.NAME, "README.md", CONFIG, WEIGHTS)
    weights = path.name.endswith((".safetensors", ".index.json"))
    kept = what in (Disposition.SERVED, Disposition.SIDECAR)
    return path.is_file() and kept and not own and not weights and not path.name.startswith(".")


def _copy(source: Path, target: Path) -> None:
    _write(source.read_bytes(), target)


def _write(data: bytes, path: Path) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
