"""DoRA: W' = m / ‖W + s·B·A‖ ⊙ (W + s·B·A), the norm over the inputs of each output. https://arxiv.org/abs/2402.09353"""

from __future__ import annotations

import torch
from torch import Tensor

from registry.numerics.merging.lora import delta


def squares(weight: Tensor, *, down: Tensor, up: Tensor, scaling: float, magnitude: Tensor) -> Tensor:
    """The part of this block (out, in) in the squared norm of each output, in float64."""
    del magnitude
    return (weight + delta(down=down, up=up, scaling=scaling)).to(torch.float64).square().sum(dim=1)


def merged(weight: Tensor, *, down: Tensor, up: Tensor, scaling: float, magnitude: Tensor, statistic: Tensor) -> Tensor:
    """The new block; ``statistic`` (out) are the squared norms."""
    norm = statistic.sqrt().to(weight.dtype)
    changed = delta(down=down, up=up, scaling=scaling).add_(weight)
    return changed.mul_((magnitude / norm).unsqueeze(1))
