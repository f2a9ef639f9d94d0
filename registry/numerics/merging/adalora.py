"""AdaLoRA: W' = W + s·B·diag(e)·A / (n + 10⁻⁵). https://arxiv.org/abs/2303.10512

A (r, in), B (out, r) and e (r) are singular vectors and values of the change; n is the rank that training began with, of which
r are left.
"""

from __future__ import annotations

import torch
from torch import Tensor


def delta(*, down: Tensor, up: Tensor, values: Tensor, scaling: float, initial_rank: float) -> Tensor:
    """The change (out, in). PEFT's term against division by zero is in what was trained."""
    return torch.mm(up, down * values.unsqueeze(1)).mul_(scaling).div_(initial_rank + 1e-5)
