"""Deltas of one target, multiplied out and made one by a method of :data:`registry.numerics.combining.COMBINERS`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from registry.errors import RejectedError
from registry.numerics.combining import COMBINERS
from registry.numerics.pieces import spans
from registry.plans.combining import Blend

#: Far enough from float32's largest number that squares of it have sums.
_FAR = 1e18


def multiplied(down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """scaling · B · A for A (r, in) and B (out, r): computed in float64, as float32."""
    down, up = down.double(), up.double()
    found = torch.empty(up.shape[0], down.shape[1])
    for span in spans(*found.shape):
        found[span] = (up[span] @ down).mul_(scaling)
    return found


def blended(blend: Blend, deltas: Sequence[Tensor], weights: Sequence[float], path: str, number: int) -> Tensor:
    """The deltas of one weight, made one. ``number`` is the expert, or group of a convolution. The draws of a place are the same
    in every run and every order of the adapters, and sums do not depend on how many cores there are.

    Raises RejectedError where a delta is too large to be squared in float32."""
    for delta, weight in zip(deltas, weights, strict=True):
        if not float(torch.linalg.vector_norm(delta, ord=torch.inf)) * max(abs(weight), 1.0) < _FAR:
            raise RejectedError(
                f"the deltas of {path} are larger than {blend.method} can compute with in float32",
                code="overflow",
                hint="combine them without --method, which computes in float64, or look whether the training diverged",
            )
    combiner = COMBINERS[blend.method]
    given = {"density": blend.density, "generator": generator(blend.seed, f"{path} {number}")}
    with _one_thread():
        deltas, weights = _in_order(deltas, weights)
        return combiner.combine(deltas, weights, **{name: given[name] for name in combiner.options})


def _in_order(deltas: Sequence[Tensor], weights: Sequence[float]) -> tuple[list[Tensor], list[float]]:
    """An order that they have by themselves, however they came: by size. What draws for one after the other draws the same."""
    sizes = [(float(torch.linalg.vector_norm(delta)), float(delta.sum())) for delta in deltas]
    order = sorted(range(len(deltas)), key=lambda i: (*sizes[i], weights[i]))
    return [deltas[i] for i in order], [weights[i] for i in order]


def generator(seed: int, place: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
