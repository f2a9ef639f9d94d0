"""The base as ``--base-view`` wants it seen: as it is stored, or through NF4, as QLoRA saw it.

1. Weights that bitsandbytes packed as NF4 are what their codes stand for: their states are read here, and have to
   agree with the tensors beside them, which are no tensors of the base any more.
2. A plain checkpoint's linear layers are what would be left of them: rounded to NF4 and back as they are read.
3. Whatever else it is packed by stays as it is, and the plan refuses it by name.

What is read of the weights is a few kilobytes for each; the codes stay on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from io import FileIO
from pathlib import Path

from registry.domain.base_model import BaseModelSpec
from registry.domain.checkpoint import Checkpoint, Extent, Nested, Packed, Rounded, Shard
from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError, UnavailableError
from registry.formats import nf4
from registry.formats.model_config import ModelConfig
from registry.formats.packing import BITSANDBYTES, NF4, method_of, packing_of
from registry.operations.directory import open_regular
from registry.operations.know_base import spec_of
from registry.plans.nf4_layers import rounded_weights

AS_STORED = "16bit"
THROUGH_NF4 = "nf4"


def seen(stored: Checkpoint, spec: BaseModelSpec, view: str) -> tuple[Checkpoint, BaseModelSpec]:
    """The checkpoint, and what is known of it. Raises MalformedFileError for weights that their states belie."""
    if view != THROUGH_NF4:
        return stored, spec
    config = ModelConfig(stored.config)
    packed = nf4.packed_names(each.name for _, each in stored)
    if packed and method_of(config) in (None, BITSANDBYTES):
        base = _unpacked(stored, packed)  # 1
    elif not packed and packing_of(config) in (None, NF4, BITSANDBYTES):
        names = rounded_weights(stored, spec)  # 2
        base = replace(stored, shards=tuple(_rounded(shard, names) for shard in stored.shards))
    else:
        return stored, spec  # 3
    known = spec_of(spec.id, config, [each for _, each in base], spec.weights_fingerprint)
    return base, replace(known, is_quantized=False)


def _rounded(shard: Shard, names: frozenset[str]) -> Shard:
    mine = [each.name for each in shard.tensors if each.name in names]
    return replace(shard, nf4=dict.fromkeys(mine, Rounded(nf4.BLOCK)))


def _unpacked(stored: Checkpoint, packed: tuple[str, ...]) -> Checkpoint:
    places = {spec.name: (shard, spec) for shard, spec in stored}
    weights = frozenset(packed)
    beside: dict[str, dict[str, TensorSpec]] = {name: {} for name in packed}
    for name, (_, spec) in places.items():
        above, _, part = name.rpartition(".")
        if above in weights and name not in weights:
            beside[above][part] = spec
    gone = {name + nf4.MARK for name in packed} | {spec.name for parts in beside.values() for spec in parts.values()}
    with ExitStack() as stack:
        reader = _Reader(stack, places)
        found = {name: _weight(name, parts, reader) for name, parts in beside.items()}
    shards = []
    for shard in stored.shards:
        mine = [found[spec.name][0] if spec.name in found else spec for spec in shard.tensors if spec.name not in gone]
        own = {spec.name: found[spec.name][1] for spec in mine if spec.name in found}
        shards.append(replace(shard, tensors=tuple(mine), nf4=own))
    return replace(stored, shards=tuple(shards))


class _Reader:
    """Small tensors, read whole. Each file is opened once."""

    def __init__(self, stack: ExitStack, places: Mapping[str, tuple[Shard, TensorSpec]]) -> None:
        self._stack, self._places = stack, places
        self._files: dict[Path, FileIO] = {}
        self._same: dict[bytes, bytes] = {}

    def place(self, name: str) -> tuple[Shard, TensorSpec]:
        return self._places[name]

    def extent(self, name: str) -> Extent:
        shard, spec = self._places[name]
        return Extent(shard.path, shard.data_start + spec.start, spec.bytes)

    def bytes(self, name: str) -> bytes:
        extent = self.extent(name)
        file = self._files.get(extent.path)
        if file is None:
            file = self._files[extent.path] = self._stack.enter_context(
                open_regular(Path(os.path.realpath(extent.path)))
            )
        data = b""
        try:
            file.seek(extent.start)
            while len(data) < extent.count and (piece := file.read(extent.count - len(data))):
                data += piece
        except OSError as error:
            raise UnavailableError(
                f"cannot read {extent.path}: {error.strerror}", hint="look at the disk, then try again"
            ) from error
        if len(data) < extent.count:
            raise MalformedFileError(
                str(extent.path),
                "became shorter while it was read",
                code="changed-while-read",
                hint="wait until whoever writes the file has finished, then try again",
            )
        return self._same.setdefault(data, data)  # all weights have the same levels


def _weight(name: str, parts: Mapping[str, TensorSpec], reader: _Reader) -> tuple[TensorSpec, Packed]:
    """The weight as it is meant, and how it is stored."""
    mark = name + nf4.MARK
    shard, state_spec = reader.place(mark)
    where = f"{shard.path}, {mark}"
    if state_spec.dtype != "U8" or state_spec.bytes > nf4.MAX_STATE:
        raise MalformedFileError(
            where,
            f"has {state_spec.bytes:,} bytes of {state_spec.dtype}, and a state is JSON of some hundred bytes",
            code="nf4-state",
            hint="get the checkpoint again",
        )
    state = nf4.parse_state(reader.bytes(mark), where=where)
    try:
        _, codes = reader.place(name)
    except KeyError:
        raise MalformedFileError(
            where, f"describes {name}, which is not there", code="nf4-state", hint="get the checkpoint again"
        ) from None
    nf4.require_parts(name, codes, parts, state, where)
    nf4.require_levels(reader.bytes(f"{name}.quant_map"), where=f"{shard.path}, {name}.quant_map")
    nested = None
    if state.nested_block is not None and state.nested_offset is not None:
        levels = reader.bytes(f"{name}.nested_quant_map")
        nf4.require_finite(levels, where=f"{shard.path}, {name}.nested_quant_map")
        nested = Nested(reader.extent(f"{name}.nested_absmax"), levels, state.nested_block, state.nested_offset)
    packed = Packed(reader.extent(name), reader.extent(f"{name}.absmax"), state.block, nested)
    return TensorSpec(name, state.dtype, state.shape, codes.start, codes.end), packed
