"""Who computes a block: read, widen, change, round once, write. One worker belongs to one thread, and keeps its buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from registry.domain.tensors import DTYPE_BITS
from registry.errors import MalformedFileError, RejectedError
from registry.plans.merging import PlannedTensor
from registry.transforms.recipes import Block, Recipe
from registry.weights.dtypes import TORCH_DTYPES
from registry.weights.rows import read_into
from registry.weights.streams import Sources

#: Its square is still a float32.
_FAR = 1e19

#: Bytes, and where in the file they belong.
Put = Callable[[memoryview, int], None]


class Worker(Protocol):
    #: About how many elements it likes a block to have.
    elements: int

    def look(self, recipe: Recipe, block: Block, files: Sources) -> Tensor:
        """What the block adds to the statistics of the recipe."""

    def make(self, recipe: Recipe, block: Block, files: Sources, put: Put, at: int) -> int:
        """Compute the block and hand its bytes to ``put``, in whose file its tensor starts at byte ``at``. Returns how many that
        were."""


class Cpu:
    #: Two float32 copies of a block stay in a core's second-level cache.
    elements = 1 << 19

    def __init__(self) -> None:
        self._stored = torch.empty(0, dtype=torch.uint8)
        self._wide = torch.empty(0, dtype=torch.uint8)

    def look(self, recipe: Recipe, block: Block, files: Sources) -> Tensor:
        return recipe.look(self._read(recipe, block, files), block)

    def make(self, recipe: Recipe, block: Block, files: Sources, put: Put, at: int) -> int:
        result = recipe.apply(self._read(recipe, block, files), block)
        row = recipe.columns * DTYPE_BITS[recipe.tensor.dtype] // 8
        self._stored = _room(self._stored, result.shape[0] * row)
        stored = self._stored[: result.shape[0] * row].view(TORCH_DTYPES[recipe.tensor.dtype]).view(result.shape)
        stored.copy_(result)
        if not _is_small(result, stored.dtype):
            require_finite(stored, recipe, block, files)
        data = self._stored.numpy().data[: result.shape[0] * row]
        put(data, at + block.start * row)
        return len(data)

    def _read(self, recipe: Recipe, block: Block, files: Sources) -> Tensor:
        self._stored, stored = read_block(recipe, block, files, self._stored)
        count = stored.numel() * recipe.compute.itemsize
        self._wide = _room(self._wide, count)
        return self._wide[:count].view(recipe.compute).view(stored.shape).copy_(stored)


class Cuda:
    """Pinned buffers and a stream of its own: several workers overlap reading, the two directions of the bus, and computing."""

    elements = 1 << 23

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stored = self._room(torch.empty(0, dtype=torch.uint8), 1)

    def look(self, recipe: Recipe, block: Block, files: Sources) -> Tensor:
        with torch.cuda.stream(self._stream):
            found = recipe.look(self._read(recipe, block, files), block)
            self._stream.synchronize()
            return found

    def make(self, recipe: Recipe, block: Block, files: Sources, put: Put, at: int) -> int:
        with torch.cuda.stream(self._stream):
            result = recipe.apply(self._read(recipe, block, files), block)
            rounded = result.to(TORCH_DTYPES[recipe.tensor.dtype])
            total = rounded.sum(dtype=recipe.compute)
            row = recipe.columns * DTYPE_BITS[recipe.tensor.dtype] // 8
            count = result.shape[0] * row
            self._stored = self._room(self._stored, count)
            stored = self._stored[:count].view(rounded.dtype).view(rounded.shape)
            stored.copy_(rounded, non_blocking=True)
            is_finite = bool(torch.isfinite(total))  # waits for the stream, so for the copy as well
            self._stream.synchronize()
        if not is_finite:
            require_finite(stored, recipe, block, files)
        put(self._stored.numpy().data[:count], at + block.start * row)
        return count

    def _read(self, recipe: Recipe, block: Block, files: Sources) -> Tensor:
        self._stored = self._room(self._stored, _bytes_of(recipe, block))
        self._stored, stored = read_block(recipe, block, files, self._stored)
        return stored.to(self._device, non_blocking=True).to(recipe.compute)

    def _room(self, buffer: Tensor, count: int) -> Tensor:
        return buffer if buffer.numel() >= count else torch.empty(count, dtype=torch.uint8, pin_memory=True)


def read_block(recipe: Recipe, block: Block, files: Sources, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """The rows as the tensor's origin has them, in ``buffer`` (or a larger one, which is the first result)."""
    origin = recipe.tensor.origin
    count = _bytes_of(recipe, block)
    buffer = _room(buffer, count)
    stored = buffer[:count].view(TORCH_DTYPES[origin.spec.dtype])
    read_into(files, origin, block.start * recipe.columns, stored)
    return buffer, stored.view(block.stop - block.start, recipe.columns)


def _is_small(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether no element can have become infinite: their norm bounds them all, and costs next to nothing."""
    flat = values.reshape(-1)
    return bool(torch.dot(flat, flat) < min(float(torch.finfo(dtype).max), _FAR) ** 2)


def require_finite(stored: Tensor, recipe: Recipe, block: Block, files: Sources) -> None:
    """One sum tells, unless it is itself too large; only then every element is looked at, and the input to say whose fault it
    is."""
    if bool(torch.isfinite(stored.sum(dtype=recipe.compute))) or bool(torch.isfinite(stored).all()):
        return
    tensor: PlannedTensor = recipe.tensor
    _, before = read_block(recipe, block, files, torch.empty(0, dtype=torch.uint8))
    if not bool(torch.isfinite(before).all()):
        raise MalformedFileError(
            str(tensor.origin.shard.path),
            f"{tensor.origin.spec.name} holds NaN or infinity",
            code="nonfinite-tensor",
            hint="get the checkpoint again; nothing was written",
        )
    raise RejectedError(
        f"{tensor.name} has values after the merge that {tensor.dtype} cannot hold",
        code="overflow",
        hint="store the result in a wider type: --dtype bfloat16, or float32",
    )


def _bytes_of(recipe: Recipe, block: Block) -> int:
    return (block.stop - block.start) * recipe.columns * DTYPE_BITS[recipe.tensor.origin.spec.dtype] // 8


def _room(buffer: Tensor, count: int) -> Tensor:
    return buffer if buffer.numel() >= count else torch.empty(count, dtype=torch.uint8)
