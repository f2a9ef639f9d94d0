"""Is the copy of an embedding in the adapter's file the base's own?

PEFT saves the embedding that a LoRA wraps along with it. Unless it was resized or trained, its numbers are the base's, and
a copy of the adapter does without them; if not, the adapter is no adapter of this base without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from registry.checks.matching import match
from registry.checks.rule import Subject
from registry.disk import path_of
from registry.domain.base_model import ModuleKind
from registry.domain.tensors import TensorSpec, is_float
from registry.errors import InvalidInputError, RejectedError
from registry.formats import shard_index
from registry.formats.shard_index import parse_shard_index
from registry.operations.bases import CheckedBase, is_path
from registry.operations.check import CheckedAdapter
from registry.operations.directory import read_regular
from registry.operations.know_base import WEIGHTS, read_shard
from registry.plans.merging import Origin, SameNumbers
from registry.variants.extras import without_base_layer
from registry.variants.tensor_names import PREFIX


def require_own(
    copies: Iterable[TensorSpec],
    weights: Path,
    adapter: CheckedAdapter,
    base: CheckedBase | None,
    same_numbers: SameNumbers,
) -> None:
    """Raises RejectedError for a copy that is not the base's own, and where nobody can know."""
    for spec in copies:
        if base is None or base.spec is None or not is_path(base.id.raw or ""):
            raise RejectedError(
                f"{adapter.name}: {spec.name} has to be left out, and whether it is the base's own cannot be known "
                "without the base",
                code="base-needed",
                hint="give the checkpoint: --base DIR",
            )
        places = [found for name in _names(spec, adapter, base) if (found := _in_checkpoint(name, base)) is not None]
        own = _origin(weights, spec.name)
        if own is None or not any(same_numbers(own, place) for place in places):
            raise RejectedError(
                f"{adapter.name}: {spec.name} was resized or trained, or is of another base: its numbers are not those in "
                f"{base.id.raw}, so it cannot be left out",
                code="copy-not-the-bases",
                hint="merge the adapter into its base and serve the merged model",
            )


def _names(spec: TensorSpec, adapter: CheckedAdapter, base: CheckedBase) -> list[str]:
    """What the tensor is called in the checkpoint; for a head that the base ties to its embedding, the embedding."""
    matching = match(Subject(adapter.manifest, adapter.config, base.spec))
    if matching is None or base.spec is None:
        return []
    path = without_base_layer(spec.name.removeprefix(PREFIX)).removesuffix(".weight")
    module = matching.module(path)
    if module is not None:
        return [f"{module.path}.weight"]
    embeddings = [one for one in base.spec.modules if one.kind is ModuleKind.EMBEDDING and one.shape == spec.shape]
    return [f"{one.path}.weight" for one in embeddings] if base.spec.is_tied else []


def _in_checkpoint(name: str, base: CheckedBase) -> Origin | None:
    try:
        place = Path(os.path.realpath(path_of(base.id.raw or "")))
    except InvalidInputError:
        return None
    if (place / WEIGHTS).exists():
        return _origin(place / WEIGHTS, name)
    if not (place / shard_index.NAME).exists():
        return None
    data = b"".join(read_regular(Path(os.path.realpath(place / shard_index.NAME))))
    shard = parse_shard_index(data, where=str(place / shard_index.NAME)).get(name)
    return _origin(place / shard, name) if shard is not None else None


def _origin(file: Path, name: str) -> Origin | None:
    """None where the file has no floating numbers of that name."""
    shard = read_shard(file)
    spec = next((one for one in shard.tensors if one.name == name), None)
    return Origin(shard, spec) if spec is not None and is_float(spec.dtype) else None
