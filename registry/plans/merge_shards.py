"""Into which files the tensors of a merged checkpoint go: as the base has them, or anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from registry.domain.checkpoint import Checkpoint
from registry.plans.merging import PlannedShard, PlannedTensor

#: The file of a checkpoint that has one.
ONE_FILE = "model.safetensors"


def laid_out(
    base: Checkpoint, tensors: Mapping[str, PlannedTensor], max_shard_bytes: int | None
) -> tuple[PlannedShard, ...]:
    if max_shard_bytes is not None:
        return _anew(base, list(tensors.values()), max_shard_bytes)
    rest = dict(tensors)
    shards = []
    for shard in base.shards:
        mine = [rest.pop(spec.name) for spec in shard.tensors]
        shards.append(PlannedShard(shard.name, tuple(mine), shard.metadata))
    if rest:
        shards[-1] = replace(shards[-1], tensors=(*shards[-1].tensors, *rest.values()))
    return tuple(shard for shard in shards if shard.tensors)  # one may have held nothing but scales


def _anew(base: Checkpoint, tensors: Sequence[PlannedTensor], most: int) -> tuple[PlannedShard, ...]:
    """As many files as it takes, none larger than ``most`` unless a single tensor is."""
    groups: list[list[PlannedTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.bytes > most:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.bytes
    metadata: Mapping[str, str] = base.shards[0].metadata
    count = len(groups)
    names = [ONE_FILE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    return tuple(PlannedShard(name, tuple(group), metadata) for name, group in zip(names, groups, strict=True))
