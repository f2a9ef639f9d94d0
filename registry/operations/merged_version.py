"""A merged checkpoint as a version of the registry: all its files, and what it was made of as its lineage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.domain.digest import Digest, Hasher
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import MERGED, FileEntry, FileRole, Manifest
from registry.domain.tensors import TensorSpec
from registry.errors import InvalidInputError
from registry.operations.describe import AdapterPackage
from registry.operations.directory import read_regular
from registry.operations.know_base import read_checkpoint
from registry.operations.module_folders import module_files
from registry.operations.verify_files import stray_files

if TYPE_CHECKING:
    from registry.domain.base_model import BaseModelId
    from registry.operations.merge_prepare import Prepared
    from registry.operations.verify import Verification

_KIND = "merged-with"
#: A path on the machine of the merge may be one.
_LONGEST_NAME = 4096


def merged_package(directory: Path, prepared: Prepared, verification: Verification) -> AdapterPackage:
    """What a push of the merged ``directory`` records. Reads every byte, for the digests."""
    files, paths = [], {}
    for path in sorted(path for path in directory.rglob("*") if not path.is_dir()):
        found = Hasher(read_regular(path))
        files.append(FileEntry(path.relative_to(directory).as_posix(), found.digest, found.size))
        paths[found.digest] = path
    recipe = prepared.recipe
    manifest = _made(
        recipe.base,
        (TensorSpec(one.name, one.dtype, one.shape, 0, one.bytes) for one in prepared.plan.tensors),
        files,
        {
            "merge": {"dtype": recipe.dtype or "keep", "base_identity": recipe.identity, **recipe.options},
            "verified": {"largest_error_ulps": verification.largest_ulps, "elements": verification.looked_at},
        },
        (LineageEdge(share.digest, _KIND, share.weight, share.name) for share in recipe.shares),
    )
    return AdapterPackage(directory, manifest, paths, ())


def require_merged(directory: Path, manifest: Manifest) -> None:
    """Whether the files of ``directory``, which are those that the manifest names, are the checkpoint that it says: what can be
    read of them is. What it was made of is told by nothing but the manifest. Raises InvalidInputError."""
    checkpoint = read_checkpoint(directory)
    modules = module_files(directory)
    nested = next((entry.path for entry in manifest.files if "/" in entry.path and entry.path not in modules), None)
    stray = (*((nested,) if nested else ()), *stray_files(checkpoint))
    if stray:
        raise InvalidInputError(
            f"{stray[0]} is not a file of a merged checkpoint",
            code="manifest-differs",
            hint="it has weights, config, tokenizer and card",
        )
    tensors = {spec.name: _unplaced(spec) for _, spec in checkpoint}
    wrong = [entry.path for entry in manifest.files if (directory / entry.path).stat().st_size != entry.size]
    if wrong or {spec.name for spec in manifest.tensors} != tensors.keys() or not _says_its_making(manifest):
        raise _differs()
    made = _made(
        manifest.base_model,
        (tensors[spec.name] for spec in manifest.tensors),
        [replace(entry, role=FileRole.SERVED) for entry in manifest.files],
        manifest.training,
        manifest.lineage,
    )
    if len(made.tensors) != len(tensors) or made.digest != manifest.digest:
        raise _differs()


def _unplaced(spec: TensorSpec) -> TensorSpec:
    """Which file it is in, and where, is no part of a merged version."""
    return TensorSpec(spec.name, spec.dtype, spec.shape, 0, spec.end - spec.start)


def _says_its_making(manifest: Manifest) -> bool:
    """As a merge does: with groups of facts, and with names that can be shown."""
    names = [*manifest.base_model.document().values(), *(edge.reference for edge in manifest.lineage)]
    return all(name is None or _is_name(name) for name in names) and all(
        isinstance(facts, dict) for facts in manifest.training.values()
    )


def _is_name(text: object) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= _LONGEST_NAME


def _differs() -> InvalidInputError:
    return InvalidInputError(
        "the manifest of the merged checkpoint is not what its files make", code="manifest-differs"
    )


def _made(
    base: BaseModelId,
    tensors: Iterable[TensorSpec],
    files: Sequence[FileEntry],
    training: Mapping[str, object],
    lineage: Iterable[LineageEdge],
) -> Manifest:
    return Manifest(
        peft_type=MERGED,
        variant=MERGED.lower(),
        base_model=base,
        task_type=None,
        targets=(),
        tensors=tuple(tensors),
        tensor_identity=_identity(files),
        files=tuple(files),
        training=training,
        lineage=tuple(lineage),
    )


def _identity(files: Iterable[FileEntry]) -> Digest:
    weights = [[entry.path, entry.digest] for entry in files if entry.path.endswith(".safetensors")]
    return Digest.of(json.dumps(weights).encode())
