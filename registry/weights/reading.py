"""A safetensors file, open for reading its tensors one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from registry.domain.tensors import TensorSpec
from registry.errors import MalformedFileError
from registry.formats.safetensors_header import read_header
from registry.weights.dtypes import TORCH_DTYPES


@dataclass(frozen=True, slots=True)
class TensorFile:
    """``specs`` has every tensor by name, in the order of the bytes. Each read takes its bytes from the disk again."""

    path: Path
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    _file: FileIO
    _data_start: int

    def read_bytes(self, name: str) -> bytearray:
        """The tensor's bytes, little-endian, as they lie in the file."""
        spec = self.specs[name]
        data = bytearray(spec.bytes)
        self._file.seek(self._data_start + spec.start)
        view, filled = memoryview(data), 0
        while filled < len(data) and (count := self._file.readinto(view[filled:])):
            filled += count
        if filled < len(data):
            raise MalformedFileError(
                str(self.path),
                f"ends inside {name!r:.80}: it became shorter while it was read",
                code="changed-while-read",
                hint="wait until whoever writes the file has finished, then try again",
            )
        return data

    def read(self, name: str) -> Tensor:
        """The tensor in its own type and shape, on the CPU and the caller's to change."""
        spec = self.specs[name]
        dtype = TORCH_DTYPES.get(spec.dtype)
        if dtype is None:
            raise MalformedFileError(
                str(self.path),
                f"{name!r:.80} is stored as {spec.dtype}, which torch cannot compute with",
                code="unsupported-dtype",
                hint="store the tensors as F32, F16 or BF16",
            )
        if not spec.elements:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.frombuffer(self.read_bytes(name), dtype=dtype).reshape(spec.shape)


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Raises MalformedHeaderError."""
    with open(path, "rb", buffering=0) as file:
        header = read_header(file, size=os.fstat(file.fileno()).st_size, where=str(path))
        yield TensorFile(path, {spec.name: spec for spec in header.tensors}, header.metadata, file, header.data_start)
