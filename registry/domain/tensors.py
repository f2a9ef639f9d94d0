"""One row of a safetensors file's table."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

#: Bits per element, by safetensors dtype name (safetensors 0.8).
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


_ODD_FLOATS = frozenset({"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0"})


def is_float(dtype: str) -> bool:
    """Whether its elements are real floating numbers that can be added and multiplied one by one."""
    return dtype.startswith(("F", "BF")) and dtype not in _ODD_FLOATS


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a tensor, and where its bytes lie: ``[start, end)`` counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.end - self.start
