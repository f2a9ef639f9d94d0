"""Large tensors a piece at a time, so that what is computed on the way takes the memory of a piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

#: Elements: some MiB, which caches like too.
PIECE = 1 << 20


def spans(count: int, width: int = 1, *, piece: int = PIECE) -> Iterator[slice]:
    """``count`` rows of ``width`` elements, cut in pieces of about ``piece`` elements."""
    step = max(1, piece // max(width, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def elementwise(compute: Callable[[list[Tensor]], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """``compute(tensors)`` for tensors of one shape and a function whose every element depends on the elements at its place alone.
    Pieces are computed in the order in which elements lie in memory."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    found = torch.empty_like(flat[0])
    for span in spans(len(found)):
        found[span] = compute([one[span] for one in flat])
    return found.reshape(tensors[0].shape)
