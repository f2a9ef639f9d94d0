"""A merged checkpoint as a version of the registry: all its files, and what it was made of as its lineage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from registry.domain.digest import PREFIX, Digest
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import MERGED, FileEntry, Manifest
from registry.domain.tensors import TensorSpec
from registry.errors import InvalidInputError
from registry.operations.describe import AdapterPackage
from registry.operations.directory import open_regular
from registry.operations.know_base import read_checkpoint
from registry.operations.verify_files import stray_files

if TYPE_CHECKING:
    from registry.operations.merge_prepare import Prepared
    from registry.operations.verify import Verification

_KIND = "merged-with"
_STEP = 1 << 20


def merged_package(directory: Path, prepared: Prepared, verification: Verification) -> AdapterPackage:
    """What a push of the merged ``directory`` records. Reads every byte, for the digests."""
    files, paths = [], {}
    for path in sorted(directory.iterdir()):
        digest, size = _digest(path)
        files.append(FileEntry(path.name, digest, size))
        paths[digest] = path
    recipe = prepared.recipe
    manifest = Manifest(
        peft_type=MERGED,
        variant=MERGED.lower(),
        base_model=recipe.base,
        task_type=None,
        targets=(),
        tensors=tuple(TensorSpec(one.name, one.dtype, one.shape, 0, one.bytes) for one in prepared.plan.tensors),
        tensor_identity=_identity(files),
        files=tuple(files),
        training={
            "merge": {"dtype": recipe.dtype or "keep", "base_identity": recipe.identity, **recipe.options},
            "verified": {"largest_error_ulps": verification.largest_ulps, "elements": verification.looked_at},
        },
        lineage=tuple(LineageEdge(share.digest, _KIND, share.weight, share.name) for share in recipe.shares),
    )
    return AdapterPackage(directory, manifest, paths, ())


def require_merged(directory: Path, manifest: Manifest) -> None:
    """Whether the files of ``directory``, which are those that the manifest names, are the checkpoint that it says: what can be
    read of them is. What it was made of is told by nothing but the manifest. Raises InvalidInputError."""
    checkpoint = read_checkpoint(directory)
    nested = next((entry.path for entry in manifest.files if "/" in entry.path), None)
    stray = (*((nested,) if nested else ()), *stray_files(checkpoint))
    if stray:
        raise InvalidInputError(
            f"{stray[0]} is not a file of a merged checkpoint",
            code="manifest-differs",
            hint="it has weights, config, tokenizer and card",
        )
    tensors = {spec.name: (spec.dtype, spec.shape, spec.end - spec.start) for _, spec in checkpoint}
    said = {spec.name: (spec.dtype, spec.shape, spec.end) for spec in manifest.tensors}
    wrong = [entry.path for entry in manifest.files if (directory / entry.path).stat().st_size != entry.size]
    if (
        wrong
        or tensors != said
        or len(said) != len(manifest.tensors)
        or _identity(manifest.files) != manifest.tensor_identity
    ):
        raise InvalidInputError(
            "the manifest of the merged checkpoint is not what its files make", code="manifest-differs"
        )


def _identity(files: Iterable[FileEntry]) -> Digest:
    weights = [[entry.path, entry.digest] for entry in files if entry.path.endswith(".safetensors")]
    return Digest.of(json.dumps(weights).encode())


def _digest(path: Path) -> tuple[Digest, int]:
    hasher, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while chunk := file.read(_STEP):
            hasher.update(chunk)
            size += len(chunk)
    return Digest(PREFIX + hasher.hexdigest()), size
