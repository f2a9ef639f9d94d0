"""Adapters become one adapter, with the weights that score best: combined, scored and thrown away, many times; then once to stay.

1. Find the adapters once, and the trials that an interrupted search recorded.
2. For the weights that the optimiser asks for: combine in a temporary directory, read back as ever, and ask the score. What is
   recorded is not tried again. A trial without a score counts as bad as the worst; if the first few all have none, that is
   the end.
3. Combine with the best weights, into the wanted place; a version's recipe names every trial.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Protocol

from registry.errors import InvalidValueError, RejectedError, ScoreFailedError
from registry.formats.trials import Trial
from registry.operations.bases import Shelf
from registry.operations.combine import Workshop, combine_found, find_all
from registry.operations.combined import Combined, CombineRequest
from registry.operations.ingredients import Found, Subject, temporary
from registry.operations.placing import refuse_occupied
from registry.operations.trial_record import TrialRecord

#: Failed trials at the start after which nobody believes in the score any more.
_BELIEF = 3
#: As in LoraHub, which finds the weights of adapters this way. https://arxiv.org/abs/2307.13269
BOUNDS = (-1.5, 1.5)
BUDGET = 30


class Explore(Protocol):
    """:func:`registry.numerics.weight_search.explore`."""

    def __call__(
        self,
        loss: Callable[[tuple[float, ...]], float],
        start: Sequence[float],
        *,
        low: float,
        high: float,
        budget: int,
        seed: int,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Search:
    """``score`` says of an adapter's directory how good it is, or raises ScoreFailedError; ``scored_by`` is what the record calls
    it. ``budget`` counts trials, recorded ones too. ``trials`` is the file of the record. ``heard`` is told of every trial, and
    which is the best by now."""

    score: Callable[[Path], float]
    scored_by: str
    trials: Path
    budget: int = BUDGET
    bounds: tuple[float, float] = BOUNDS
    seed: int = 0
    lower_is_better: bool = False
    resume: bool = False
    heard: Callable[[Trial, Trial | None], None] = lambda _trial, _best: None


@dataclass(frozen=True, slots=True)
class Searched:
    """``trials`` in the order they were asked for; ``best`` is one of them."""

    combined: Combined
    trials: tuple[Trial, ...]
    best: Trial
    record: str

    def document(self) -> dict[str, object]:
        """``combine --search --json``. Keys are only ever added."""
        search = {
            "best": self.best.document(),
            "trials": [trial.document() for trial in self.trials],
            "record": self.record,
        }
        return {**self.combined.document(), "search": search}


def search(
    request: CombineRequest,
    wanted: Search,
    *,
    shelf: Shelf,
    workshop: Workshop,
    explore: Explore,
) -> Searched:
    """The weights of the request are the first trial. Otherwise as :func:`registry.operations.combine.combine`; raises
    ScoreFailedError where no trial, or none of the first few, has a score."""
    start = [weight for _, weight in request.adapters]
    _require_sound(wanted, start)
    if request.into is not None:
        refuse_occupied(request.into)
        inside = Path(os.path.abspath(wanted.trials))
        if Path(os.path.abspath(request.into)) in (inside, *inside.parents):
            raise InvalidValueError(
                "record of trials", str(wanted.trials), f"a file outside {request.into}, which has the adapter"
            )
    with temporary() as work:
        found = find_all(request, work, shelf)  # 1
        making = _making(found, request, wanted)
        with TrialRecord(wanted.trials, making, resume=wanted.resume) as record:
            trials = _Trials(request, wanted, found, record, work, shelf, workshop)
            low, high = wanted.bounds
            explore(trials.loss, start, low=low, high=high, budget=wanted.budget, seed=wanted.seed)  # 2
        best = trials.best
        if best is None:
            raise ScoreFailedError(wanted.scored_by, f"gave none of {len(trials.made)} trials a score")
        facts = {"search": {**making, "best": best.document(), "trials": [one.document() for one in trials.made]}}
        last = replace(request, adapters=_with(request, best.weights))
        done = combine_found(found, last, work, shelf=shelf, workshop=workshop, facts=facts)  # 3
    return Searched(done, tuple(trials.made), best, str(wanted.trials))


@dataclass
class _Trials:
    request: CombineRequest
    wanted: Search
    found: Sequence[Found]
    record: TrialRecord
    work: Path
    shelf: Shelf
    workshop: Workshop
    made: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The first of those with the best score."""
        scored = [trial for trial in self.made if trial.score is not None]
        return min(scored, key=self._loss_of, default=None)

    def loss(self, weights: tuple[float, ...]) -> float:
        recorded = self.record.trials.get(weights)
        trial = replace(recorded, number=len(self.made) + 1) if recorded is not None else self._tried(weights)
        self.made.append(trial)
        if recorded is None:
            self.record.add(trial)
        self.wanted.heard(trial, self.best)
        if len(self.made) == _BELIEF and self.best is None:
            raise ScoreFailedError(
                self.wanted.scored_by, f"gave none of the first {_BELIEF} trials a score; the last: {trial.error}"
            )
        return self._loss_of(trial)

    def _loss_of(self, trial: Trial) -> float:
        if trial.score is None:
            return max((self._loss_of(one) for one in self.made if one.score is not None), default=0.0)
        return trial.score if self.wanted.lower_is_better else -trial.score

    def _tried(self, weights: tuple[float, ...]) -> Trial:
        number = len(self.made) + 1
        try:
            with temporary() as beside:
                adapters = _with(self.request, weights)
                trial = replace(self.request, adapters=adapters, into=beside / "adapter", name=None)
                combine_found(self.found, trial, self.work, shelf=self.shelf, workshop=self.workshop)
                score = float(self.wanted.score(beside / "adapter"))
                return (
                    Trial(number, weights, score)
                    if isfinite(score)
                    else Trial(number, weights, None, f"scores {score}")
                )
        except ScoreFailedError as error:
            return Trial(number, weights, None, error.problem)
        except RejectedError as error:
            if not self.made:
                raise  # no weights would make a sum of these
            return Trial(number, weights, None, error.message)


def _with(request: CombineRequest, weights: Sequence[float]) -> Sequence[tuple[Subject, float]]:
    return [(subject, weight) for (subject, _), weight in zip(request.adapters, weights, strict=True)]


def _require_sound(wanted: Search, start: Sequence[float]) -> None:
    low, high = wanted.bounds
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InvalidValueError("range of weights", f"{low:g}..{high:g}", "LOW..HIGH, such as -1.5..1.5")
    outside = next((weight for weight in start if not low <= weight <= high), None)
    if outside is not None:
        raise InvalidValueError(
            "weight to start from",
            f"{outside:g}",
            f"a number from {low:g} to {high:g}, between which weights are searched",
        )
    if wanted.budget < 1:
        raise InvalidValueError("number of trials", str(wanted.budget), "1 or more")


def _making(found: Sequence[Found], request: CombineRequest, wanted: Search) -> Mapping[str, object]:
    """Everything that the weights asked for, and their scores, depend on; as JSON gives it back."""
    method = request.method
    return {
        "adapters": [str(one.adapter.manifest.digest) for one in found],
        "start": [float(weight) for _, weight in request.adapters],
        "score": wanted.scored_by,
        "lower_is_better": wanted.lower_is_better,
        "bounds": [float(bound) for bound in wanted.bounds],
        "search_seed": wanted.seed,
        "method": method.blend.method,
        "rank": method.rank,
        "energy": method.energy,
        "density": method.blend.density,
        "seed": method.blend.seed,
        "dtype": request.dtype,
        "max_bytes": method.max_bytes,
    }
