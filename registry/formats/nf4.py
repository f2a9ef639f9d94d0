"""NF4 as bitsandbytes stores it in a safetensors file: the tensors beside a weight, and the state that describes them.

| tensor | holds |
|---|---|
| ``X`` | two codes of 4 bits in each byte, whatever type the file gives it |
| ``X.absmax`` | a scale for each block: F32, or a byte where the scales are packed once more |
| ``X.quant_map`` | the 16 levels, which bitsandbytes writes and never reads: they are constants of its kernels |
| ``X.nested_absmax``, ``X.nested_quant_map`` | of packed scales: a scale for each block of them, and their 256 levels |
| ``X.quant_state.bitsandbytes__nf4`` | JSON as bytes: block sizes, type and shape of the weight |

The law: sizes, types and state agree, or nothing is read. (bitsandbytes, ``functional.py``, ``QuantState``.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import MalformedFileError
from registry.formats.json_text import parse_json

#: What the state's name has behind the weight's.
MARK = ".quant_state.bitsandbytes__nf4"
#: Quantiles of the normal distribution, as bitsandbytes rounded them (QLoRA, arXiv:2305.14314, appendix E).
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
#: Elements that share a scale where nobody says otherwise.
BLOCK = 64
MAX_STATE = 4096

_CLOSE = 1e-6
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BLOCKS = frozenset({32, 64, 128, 256, 512, 1024, 2048, 4096})
_STORAGE = frozenset({"U8", "F16", "BF16", "F32"})
_PLAIN = frozenset({"quant_type", "blocksize", "dtype", "shape"})
_NESTED = frozenset({"nested_blocksize", "nested_dtype", "nested_offset"})
_PARTS = frozenset({"absmax", "quant_map"})
_NESTED_PARTS = frozenset({"nested_absmax", "nested_quant_map"})
_AGAIN = "get the checkpoint again, or quantise it again with bitsandbytes"


@dataclass(frozen=True, slots=True)
class QuantState:
    """``dtype`` is safetensors' name. The nested numbers are None where scales are stored as they are."""

    dtype: str
    shape: tuple[int, ...]
    block: int
    nested_block: int | None = None
    nested_offset: float | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def scales(self) -> int:
        return -(-self.elements // self.block)


def parse_state(data: bytes, *, where: str) -> QuantState:
    """Raises MalformedFileError for anything that bitsandbytes does not write, or another type than NF4."""
    document = parse_json(data, where=where, max_bytes=MAX_STATE, max_depth=3, forbid_constants=True)
    if not isinstance(document, dict):
        raise _broken(where, "holds no JSON object")
    nested = bool(document.keys() & _NESTED)
    expected = _PLAIN | _NESTED if nested else _PLAIN
    if document.keys() != expected:
        odd = min(document.keys() ^ expected)
        raise _broken(where, f"{'lacks' if odd in expected else 'has the unknown'} {odd!r:.80}")
    if document["quant_type"] != "nf4":
        raise _broken(where, f"says quant_type {document['quant_type']!r:.40}, and its name says nf4")
    dtype, shape = document["dtype"], document["shape"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _broken(where, f"says dtype {dtype!r:.40}, which is none of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 8 or not all(_is_size(size) for size in shape):
        raise _broken(where, f"says shape {shape!r:.80}, which no tensor has")
    state = QuantState(_DTYPES[dtype], tuple(shape), _block(document["blocksize"], where))
    if not nested:
        return state
    if document["nested_dtype"] != "float32":
        raise _broken(where, f"says nested_dtype {document['nested_dtype']!r:.40}, and scales are float32")
    block, offset = _block(document["nested_blocksize"], where), _float32(document["nested_offset"])
    if offset is None:
        raise _broken(where, f"says nested_offset {document['nested_offset']!r:.40}, which is no float32")
    return QuantState(state.dtype, state.shape, state.block, block, offset)


def require_parts(
    name: str, weight: TensorSpec, parts: Mapping[str, TensorSpec], state: QuantState, where: str
) -> None:
    """Whether the tensors beside the weight ``name`` are those of the state, in type and size. ``parts`` go by what
    stands behind the weight's name. Raises MalformedFileError."""
    nested = state.nested_block is not None
    wanted = _PARTS | _NESTED_PARTS if nested else _PARTS
    if parts.keys() != wanted:
        odd = min(parts.keys() ^ wanted)
        said = "is missing" if odd in wanted else "is none of the tensors that its state tells of"
        raise _broken(where, f"{name}.{odd:.80} {said}")
    if weight.dtype not in _STORAGE or weight.bytes != (state.elements + 1) // 2:
        raise _broken(
            where,
            f"{name} has {weight.bytes:,} bytes of {weight.dtype}, and {state.elements:,} elements of 4 bits are said",
        )
    if len(weight.shape) == 2 and weight.shape[0] == 1 and weight.shape[1] > 1:
        raise _broken(where, f"{name} is stored {weight.shape}, and bitsandbytes saves one column")
    _require(parts["absmax"], "U8" if nested else "F32", state.scales, where)
    _require(parts["quant_map"], "F32", len(LEVELS), where)
    if nested:
        _require(parts["nested_absmax"], "F32", -(-state.scales // (state.nested_block or 1)), where)
        _require(parts["nested_quant_map"], "F32", 256, where)


def require_levels(data: bytes, *, where: str) -> None:
    """Whether these F32 bytes are NF4's levels. Raises MalformedFileError."""
    found = struct.unpack(f"<{len(LEVELS)}f", data)
    if not all(abs(one - level) <= _CLOSE for one, level in zip(found, LEVELS, strict=True)):
        raise _broken(where, "holds other levels than those of NF4, which bitsandbytes would use all the same")


def require_finite(data: bytes, *, where: str) -> None:
    """Whether F32 bytes are all numbers. Raises MalformedFileError."""
    if not all(map(math.isfinite, struct.unpack(f"<{len(data) // 4}f", data))):
        raise _broken(where, "holds NaN or infinity")


def packed_names(names: Iterable[str]) -> tuple[str, ...]:
    """The weights that have a state beside them."""
    return tuple(name.removesuffix(MARK) for name in names if name.endswith(MARK))


def _require(spec: TensorSpec, dtype: str, elements: int, where: str) -> None:
    if spec.dtype != dtype or spec.elements != elements or spec.bytes * 8 != elements * DTYPE_BITS[dtype]:
        raise _broken(
            where,
            f"{spec.name} holds {spec.elements:,} of {spec.dtype}, and the state asks for {elements:,} of {dtype}",
        )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40


def _block(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _BLOCKS:
        raise _broken(where, f"says a block of {value!r:.40}, and there are {', '.join(map(str, sorted(_BLOCKS)))}")
    return value


def _float32(value: object) -> float | None:
    """The number rounded to float32, as bitsandbytes reads it; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except (OverflowError, struct.error):
        return None
    return rounded


def _broken(where: str, problem: str) -> MalformedFileError:
    return MalformedFileError(where, problem, code="nf4-state", hint=_AGAIN)
