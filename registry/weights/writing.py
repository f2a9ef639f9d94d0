"""A safetensors file, written from a table of what will come and then the tensors, one by one.

The header stands first in the file and says where every tensor lies, so names, types and shapes have to be known before
the first tensor is computed; then nothing but one tensor is ever in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from registry.disk import new_file
from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.weights.dtypes import TORCH_DTYPES

_ALIGNMENT = 8


def laid_out(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """The specs with their places, in the order of safetensors' own writer: wide types first, then by name, so that
    every tensor is aligned to its type."""
    return in_order(sorted(specs, key=lambda spec: (-DTYPE_BITS[spec.dtype], spec.name)))


def in_order(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """The specs with their places, one behind the other as they come."""
    placed, end = [], 0
    for spec in specs:
        start, end = end, end + spec.elements * DTYPE_BITS[spec.dtype] // 8
        placed.append(TensorSpec(spec.name, spec.dtype, spec.shape, start, end))
    return placed


def write_tensors(
    path: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[Tensor | bytearray],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """``specs`` as :func:`laid_out` gives them, and their ``tensors`` (or their bytes) in the same order. The file must not
    exist; it is synced before this returns. A tensor that is not what its spec says is a ValueError."""
    with new_file(path) as file:
        file.write(header_of(specs, metadata or {}))
        for spec, tensor in zip(specs, tensors, strict=True):
            data = _bytes(tensor, spec) if isinstance(tensor, Tensor) else memoryview(tensor)
            if data.nbytes != spec.bytes:
                raise ValueError(f"{spec.name} has {data.nbytes} bytes, announced as {spec.bytes}")
            file.write(data)


def header_of(specs: Iterable[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """The file's first bytes: the length of the table, and the table."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for spec in specs:
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [spec.start, spec.end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor, spec: TensorSpec) -> memoryview:
    if tuple(tensor.shape) != spec.shape or tensor.dtype is not TORCH_DTYPES[spec.dtype]:
        raise ValueError(f"{spec.name} is {tensor.dtype} {tuple(tensor.shape)}, announced as {spec.dtype} {spec.shape}")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
