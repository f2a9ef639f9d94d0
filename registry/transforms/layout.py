"""Factors as files hold them, brought into the form that formulas are about: A (r, in), B (out, r)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
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


def unmatrices(
    pairs: Sequence[tuple[Tensor, Tensor]], *, like: Sequence[int], experts: int = 1
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`matrices`: the two tensors as files hold them. ``like`` is the shape of some A of the layer, whose
    ranks may differ."""
    downs, ups = zip(*pairs, strict=True)
    if len(like) > 2:
        down, up = torch.cat(downs), torch.cat(ups)
        return down.reshape(down.shape[0], *like[1:]), up.reshape(*up.shape, *(1 for _ in like[2:]))
    if experts > 1:
        return torch.cat(downs), torch.stack(ups, dim=2).flatten(1)
    return downs[0], ups[0]
