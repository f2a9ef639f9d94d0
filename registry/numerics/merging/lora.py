"""LoRA: W' = W + s·B·A. https://arxiv.org/abs/2106.09685"""

from __future__ import annotations

import torch
from torch import Tensor


def delta(*, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """s·B·A (out, in) of A (r, in) and B (out, r): summed over r, then scaled, as PEFT does."""
    return torch.mm(up, down).mul_(scaling)


def bias_delta(*, bias: Tensor, scaling: float) -> Tensor:
    """s·b (out, 1): the bias of B, which a layer adds to its own (``lora_bias``, huggingface/peft#2489)."""
    return (bias * scaling).unsqueeze(1)
