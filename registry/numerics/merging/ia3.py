"""(IA)³: every output of a layer times a number, W' = diag(l)·W, or every input, W' = W·diag(l).
https://arxiv.org/abs/2205.05638

A bias is multiplied as the outputs are: it is a weight (out, 1).
"""

from __future__ import annotations

from torch import Tensor


def outputs(weight: Tensor, *, vector: Tensor) -> Tensor:
    """The new block (out, in) by l (out)."""
    return weight * vector.unsqueeze(1)


def inputs(weight: Tensor, *, vector: Tensor) -> Tensor:
    """The new block (out, in·k) by l (in): a convolution has k columns for each input."""
    return weight * vector.repeat_interleave(weight.shape[1] // vector.shape[0])
