"""Factors as files hold them, brought into the form that formulas are about: A (r, in), B (out, r)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def matrices(down: Tensor, up: Tensor, *, experts: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs (A, B) that two tensors are made of, of which each is a delta of its own.

    Linear and embedding layers have one. A convolution's is A (r, in·k…) and B (out, r), for each group one with r / groups
    rows. Fused experts have one each: A (experts · r, in), B (out, r · experts) with the expert running fastest.
    """
    if down.dim() > 2:
        down, up = down.flatten(1), up.flatten(1)
        groups = down.shape[0] // up.shape[1]
        yield from zip(down.chunk(groups), up.chunk(groups), strict=True)
    elif experts > 1:
        by_expert = down.reshape(experts, -1, down.shape[1])
        yield from zip(by_expert, up.reshape(up.shape[0], -1, experts).movedim(2, 0), strict=True)
    else:
        yield down, up
