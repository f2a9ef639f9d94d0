"""W += Σ s·B·A in one pass over W: read once, summed in float32, rounded once, written once. A Triton kernel.

On a device a merge is as fast as memory: what counts is that W, in its 16 bits, crosses the bus to the memory twice and
nothing else of its size does. The products are float32 (``ieee``: no TF32), the factors stay in the caches.
https://triton-lang.org
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

#: Ranks beyond which the kernel would compute longer than memory takes, and a matrix product is the better way.
_LARGEST_RANK = 128
_STEP = 16
_ROWS, _COLUMNS = 64, 128


def fits(weight: Tensor, formulas: Sequence[str]) -> bool:
    """Whether :func:`add_` can do it: a matrix on a CUDA device, plain LoRA, Triton there."""
    return (
        weight.device.type == "cuda"
        and weight.is_contiguous()
        and weight.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and bool(formulas)
        and set(formulas) == {"lora"}
        and _kernel() is not None
    )


def add_(weight: Tensor, deltas: Sequence[tuple[Tensor, Tensor, float]]) -> None:
    """Add s·B·A for each (B (out, r), A (r, in), s), float32, to ``weight`` (out, in), in place."""
    up = torch.cat([up * scaling for up, _, scaling in deltas], dim=1) if len(deltas) > 1 else deltas[0][0]
    down = torch.cat([down for _, down, _ in deltas]) if len(deltas) > 1 else deltas[0][1]
    scaling = 1.0 if len(deltas) > 1 else deltas[0][2]
    rank = up.shape[1]
    if rank > _LARGEST_RANK:
        for start in range(0, weight.shape[0], 4096):
            rows = slice(start, start + 4096)
            weight[rows] = (torch.mm(up[rows], down).mul_(scaling) + weight[rows]).to(weight.dtype)
        return
    launch(weight, up, down, scaling)


def launch(weight: Tensor, up: Tensor, down: Tensor, scaling: float) -> None:
    rows, columns = weight.shape
    grid = (-(-rows // _ROWS) * -(-columns // _COLUMNS),)
    _kernel()[grid](
        weight, up.contiguous(), down.contiguous(), rows, columns, up.shape[1], scaling,
        STEP=_STEP, ROWS=_ROWS, COLUMNS=_COLUMNS,
    )  # fmt: skip


@cache
def _kernel() -> Any:
    """Compiled at the first use; None without Triton."""
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(
        weight: Any, up: Any, down: Any, rows: Any, columns: Any, rank: Any, scaling: Any,
        STEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # noqa: N803  # Triton's constants
    ) -> None:  # fmt: skip
        place = tl.program_id(0)
        across = tl.cdiv(columns, COLUMNS)
        row = (place // across) * ROWS + tl.arange(0, ROWS)
        column = (place % across) * COLUMNS + tl.arange(0, COLUMNS)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for start in range(0, rank, STEP):
            step = start + tl.arange(0, STEP)
            b = tl.load(
                up + row[:, None] * rank + step[None, :], mask=(row[:, None] < rows) & (step[None, :] < rank), other=0.0
            )
            a = tl.load(
                down + step[:, None] * columns + column[None, :],
                mask=(step[:, None] < rank) & (column[None, :] < columns),
                other=0.0,
            )
            total += tl.dot(b, a, input_precision="ieee")
        at = weight + row[:, None].to(tl.int64) * columns + column[None, :]
        before = tl.load(at, mask=inside, other=0.0)
        tl.store(at, (before.to(tl.float32) + total * scaling).to(before.dtype), mask=inside)

    return kernel
