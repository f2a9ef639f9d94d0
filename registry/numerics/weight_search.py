"""The weights of a combination that score best, where a score costs minutes and has no derivative.

COBYQA (https://doi.org/10.1007/978-3-031-70602-6, in scipy) models the score by a quadratic in a region that it trusts, and
keeps within bounds. Of what there is it needs the fewest evaluations for a few smooth weights. It finds the summit next to
its start, so once it has, it starts again from a place drawn at random, until the budget is spent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from scipy.optimize import minimize

#: Weights are tried to so many decimals, so that those of a trial can be typed.
DECIMALS = 4
_FIRST_RADIUS = 1 / 8  #: of the range
_LAST_RADIUS = 10.0 ** (1 - DECIMALS)


class _SpentError(Exception):
    """The budget is: the way out of an optimiser that asks for more."""


def explore(
    loss: Callable[[tuple[float, ...]], float],
    start: Sequence[float],
    *,
    low: float,
    high: float,
    budget: int,
    seed: int,
) -> None:
    """Ask ``loss`` for the weights that are worth a trial, at most ``budget`` times and never twice for the same; the first are
    ``start``, all others lie between ``low`` and ``high``.

    The same answers lead to the same questions: whoever recorded them can go on where it was interrupted.
    """
    known: dict[tuple[float, ...], float] = {}
    first = tuple(float(weight) for weight in start)
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}".encode()).digest()))  # any seed, below 0 too

    def asked(point: Sequence[float]) -> float:
        weights = _rounded(point)
        if weights == _rounded(first):
            weights = first
        if weights not in known:
            if len(known) >= budget:
                raise _SpentError
            known[weights] = loss(weights)
        return known[weights]

    bounds = [(low, high)] * len(first)
    radius = (high - low) * _FIRST_RADIUS
    options = {"initial_tr_radius": radius, "final_tr_radius": min(_LAST_RADIUS, radius)}
    place = first
    with suppress(_SpentError):
        for _ in range(budget):  # a start costs a trial at least, unless the range is so narrow that all were made
            minimize(asked, place, method="COBYQA", bounds=bounds, options=options)
            place = tuple(draw.uniform(low, high, len(first)))


def _rounded(point: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(weight), DECIMALS) + 0.0 for weight in point)  # −0 is 0
