"""HiRA: W' = W + s·W ⊙ (B·A), element by element. https://openreview.net/forum?id=TwJrTz9cRS

A (r, in), B (out, r). The method has no α: s is the share that is wanted of the change.
"""

from __future__ import annotations

import torch
from torch import Tensor


def merged(weight: Tensor, *, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """The new block (out, in)."""
    return torch.mm(up, down).mul_(scaling).mul_(weight).add_(weight)
