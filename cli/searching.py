"""The part of ``adapters combine`` that is about ``--search``: what was asked, and what is said of every trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from typer import BadParameter

from cli.numerals import number
from cli.rendering import counted, note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.context import Session
    from registry.formats.trials import Trial
    from registry.operations.search import Search, Searched


def wanted(
    session: Session,
    adapters: Sequence[str],
    output: Path | None,
    *,
    score: str | None,
    trials: Path | None,
    budget: int | None,
    bounds: str | None,
    seed: int,
    higher_is_better: bool,
    resume: bool,
) -> Search:
    from registry.operations.score_command import ScoreCommand
    from registry.operations.search import BOUNDS, BUDGET, Search

    if score is None:
        raise BadParameter("say what a good adapter is: --score 'python score.py {dir}'", param_hint="--search")
    if trials is None and output is None:
        raise BadParameter("say where to record them: --trials FILE, or -o DIR", param_hint="--trials")
    command = ScoreCommand.parse(score)
    count = BUDGET if budget is None else budget

    def heard(trial: Trial, best: Trial | None) -> None:
        outcome = f"{trial.score:.6g}" if trial.score is not None else f"failed: {trial.error}"
        lead = f", best {best.score:.6g}" if best is not None and best.score is not None else ""
        note(f"trial {trial.number} of {count}: {_weights(adapters, trial)} → {outcome}{lead}", quiet=session.quiet)

    return Search(
        score=command,
        scored_by=command.text,
        trials=trials or output_beside(output),
        budget=count,
        bounds=BOUNDS if bounds is None else _bounds(bounds),
        seed=seed,
        lower_is_better=not higher_is_better,
        resume=resume,
        heard=heard if not session.json else lambda _trial, _best: None,
    )


def output_beside(output: Path | None) -> Path:
    """``DIR.trials.jsonl``: the directory itself appears when the search is over."""
    place = (output or Path()).absolute()
    return place.with_name(f"{place.name}.trials.jsonl")


def show_search(done: Searched, adapters: Sequence[str]) -> None:
    failed = sum(trial.score is None for trial in done.trials)
    lost = f", {failed} failed" if failed else ""
    say(
        f"{_weights(adapters, done.best)} scored {done.best.score:.6g}, the best of {counted(len(done.trials), 'trial')}{lost}"
    )
    say(f"every trial: {done.record}")


def _weights(adapters: Sequence[str], trial: Trial) -> str:
    return " ".join(f"{name}={weight:g}" for name, weight in zip(adapters, trial.weights, strict=True))


def _bounds(text: str) -> tuple[float, float]:
    low, high = map(number, text.partition("..")[::2])
    if low is None or high is None:
        raise BadParameter(f"{text!r} is no range such as -1.5..1.5", param_hint="--bounds")
    return low, high
