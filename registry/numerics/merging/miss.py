"""MiSS: W' = W + s·[Dᵀ Dᵀ …], one narrow matrix again and again. https://arxiv.org/abs/2409.15371

D (r, out): input j is changed by row j mod r. In the smaller form D (r, c) is repeated along the outputs as well.
"""

from __future__ import annotations

from torch import Tensor


def outputs(*, block: Tensor, outputs: float) -> dict[str, Tensor]:
    """Dᵀ for all outputs, (out, r)."""
    return {"block": block.repeat(1, int(outputs) // block.shape[1]).mT}


def delta(*, block: Tensor, scaling: float, inputs: float) -> Tensor:
    """The change (out, in)."""
    width = int(inputs)
    return block.repeat(1, -(-width // block.shape[1]))[:, :width].mul_(scaling)
