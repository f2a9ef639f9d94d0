"""A base and adapters become a checkpoint that is complete and proven, or nothing appears.

1. Prepare: files, rules, plan (:mod:`registry.operations.merge_prepare`). Look whether there is room.
2. Write the weights, through the workshop, beside the wanted place; what an interrupted run finished is proven, not trusted.
3. Read a sample of them back, and hold it against the same sum in float64.
4. Write config, tokenizer, card, and the index last; only then it is renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.domain.names import AdapterName
from registry.domain.version import Version
from registry.errors import InvalidInputError, UnavailableError
from registry.operations.bases import Shelf
from registry.operations.merge_card import card
from registry.operations.merge_output import write_rest
from registry.operations.merge_prepare import MergeRequest, Prepared, Progress, Workshop, prepare
from registry.operations.workplace import Workplace, workplace
from registry.plans.merging import MergePlan

if TYPE_CHECKING:
    from registry.operations.verify import Verification


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


def merge(
    request: MergeRequest,
    into: Path,
    *,
    shelf: Shelf,
    workshop: Callable[[], Workshop],
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
        _require_outside(into, prepared.base.directory)
        with workplace(into, making=_making(prepared, request), resume=request.resume) as work:
            _keep_only(work, {shard.name for shard in plan.shards})
            _require_room(plan, work)
            work.keep = True
            expect(plan.bytes)
            workshop().write_merged(
                plan, work.directory, device=request.device, finished=work.finished, progress=progress
            )  # 2
            verification = verify_plan(plan, work.directory, workshop=workshop())  # 3
            verification.require_sound(str(into))
            write_rest(prepared, work.directory, card(prepared.recipe, verification))  # 4
    return Merged(str(into), prepared, verification)


def stored(done: Merged, name: AdapterName, shelf: Shelf) -> Merged:
    """The merged checkpoint as the next version of ``name``; the same content again is the same version."""
    from registry.operations.merged_version import merged_package
    from registry.operations.publish import Submission, publish

    package = merged_package(Path(done.directory), done.prepared, done.verification)
    published = publish([Submission(package, name)], blobs=shelf.blobs, catalog=shelf.catalog)[0]
    return replace(done, version=published.version)


def _making(prepared: Prepared, request: MergeRequest) -> str:
    """A digest of all that the bytes depend on: which files of the base, which adapters, what is asked."""
    base = [[shard.name, shard.size, os.stat(shard.path).st_mtime_ns] for shard in prepared.base.shards]
    asked = [[one.manifest.tensor_identity, one.manifest.digest, one.weight] for one in prepared.adapters]
    options = {**prepared.recipe.options, "dtype": request.options.dtype, "files": request.options.max_shard_bytes}
    text = json.dumps([str(prepared.base.directory), base, asked, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_outside(into: Path, base: Path) -> None:
    """The base stays as it is. Below an adapter's directory is where trainers put what they merge, and nothing of it is read."""
    place, own = Path(os.path.realpath(into)), Path(os.path.realpath(base))
    if own == place or own in place.parents:
        raise InvalidInputError(
            f"the output would {'be' if own == place else 'lie inside'} the base, {base}",
            code="output-in-base",
            hint="give a directory outside of it: -o DIR",
        )


def _keep_only(work: Workplace, names: Collection[str]) -> None:
    """What somebody put beside the finished files is not part of the result."""
    for name in work.finished - set(names):
        (work.directory / name).unlink()
    work.finished &= set(names)


def _require_room(plan: MergePlan, work: Workplace) -> None:
    """For what is not there yet. A finished file that is made again gives its room back first."""
    there = {name: (work.directory / name).stat().st_size for name in work.finished}
    wanted = sum(max(shard.bytes - there.get(shard.name, 0), 0) for shard in plan.shards)
    free = shutil.disk_usage(work.directory).free
    if wanted > free:
        raise UnavailableError(
            f"the merged weights need {wanted / 1e9:,.1f} GB, and {work.directory.parent} has {free / 1e9:,.1f} GB",
            code="no-space",
            hint="make room there, or give another -o",
        )
