"""``adapters combine``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.combining import ENERGY, MAX_BYTES, NAME, OUTPUT, limits, require_place, show_combined, show_interference
from cli.context import Session
from cli.rendering import emit, say, warn
from cli.searching import show_search, wanted
from cli.tensor_options import DENSITY, METHOD, STORED, Dtype, blend_of, weighted
from registry.plans.combining import LINEAR

_SEARCH = "With --search"


def combine(
    session: Session,
    adapters: Annotated[
        list[str],
        Argument(metavar="ADAPTER[=WEIGHT]", help="Directories, references or hf://OWNER/NAME@REV; a weight is 1."),
    ],
    output: OUTPUT = None,
    name: NAME = None,
    rank: Annotated[
        str,
        Option(metavar="exact|N|auto", help="exact: the sum as it is; N: at most N in each layer; auto: by --energy."),
    ] = "exact",
    energy: ENERGY = None,
    max_bytes: MAX_BYTES = None,
    method: METHOD = LINEAR,
    density: DENSITY = 0.5,
    seed: Annotated[
        int,
        Option(
            metavar="N", help="For what is drawn at random, in any order of adapters: by some methods, and by --search."
        ),
    ] = 0,
    dtype: Annotated[
        Dtype,
        Option(help="The type of the result's factors; keep: the widest of the inputs, at least float32 if not exact."),
    ] = Dtype.keep,
    search: Annotated[
        bool, Option("--search", rich_help_panel=_SEARCH, help="Find the weights; those given are tried first.")
    ] = False,
    score: Annotated[
        str | None,
        Option(
            metavar="COMMAND",
            rich_help_panel=_SEARCH,
            help="Scores the adapter in {dir}: the last line that it prints is the number. No shell.",
        ),
    ] = None,
    budget: Annotated[
        int | None, Option(metavar="N", min=1, rich_help_panel=_SEARCH, help="How many trials (default: 30).")
    ] = None,
    bounds: Annotated[
        str | None, Option(metavar="LOW..HIGH", rich_help_panel=_SEARCH, help="Of every weight (default: -1.5..1.5).")
    ] = None,
    higher_is_better: Annotated[
        bool,
        Option("--higher-is-better/--lower-is-better", rich_help_panel=_SEARCH, help="Which score is the better one."),
    ] = True,
    trials: Annotated[
        Path | None,
        Option(metavar="FILE", rich_help_panel=_SEARCH, help="The record (default: DIR.trials.jsonl beside DIR)."),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", rich_help_panel=_SEARCH, help="Go on with the recorded trials; none is run again.")
    ] = False,
) -> None:
    """Add adapters up to one adapter: Σ weight · delta, exactly.

    Ranks and targets may differ.

    The factors are stacked, with weights and scalings folded in; a truncation (--rank, --energy) is the best there is, and
    what it leaves away is said, layer by layer. Weights may be negative. The result is read back and measured.
    Other methods work on the deltas themselves; the result keeps at most the sum of the ranks, or --rank.

    --search finds the weights that score best, by trials in temporary directories.

    Exit code 6: there is no sum (DoRA, other bases, differing heads …); every reason is said, and nothing was written.

    Example: adapters combine law=0.7 style=0.3 -o ./both --rank 16
    """
    require_place(output, name)
    blend = blend_of(method, density, seed)
    kept, stored = limits(rank, energy, max_bytes), STORED.get(dtype)
    asked = [weighted(text) for text in adapters]
    if search:
        searched = wanted(
            session,
            [one for one, _ in asked],
            output,
            score=score,
            trials=trials,
            budget=budget,
            bounds=bounds,
            seed=seed,
            higher_is_better=higher_is_better,
            resume=resume,
        )
        found = session.registry.search_weights(
            asked, output, wanted=searched, name=name, method=method, density=density, seed=seed, dtype=stored, **kept
        )
        done = found.combined
    else:
        _refuse_search_options(score=score, budget=budget, bounds=bounds, trials=trials, resume=resume or None)
        found = None
        foresee = show_interference if len(asked) > 1 and not (session.json or session.quiet) else None
        done = session.registry.combine(
            asked, output, foresee=foresee, name=name, method=method, density=density, seed=seed, dtype=stored, **kept
        )
    if session.json:
        emit((found or done).document())
        return
    warn(done.findings, quiet=session.quiet)
    show_combined(done, truncated=any(kept.values()) or not blend.is_linear)
    if found is not None:
        show_search(found, [one for one, _ in asked])
    say(f"{', '.join(adapters)} → {', '.join(done.places)}")


def _refuse_search_options(**options: object) -> None:
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise BadParameter("is about a search: give --search as well", param_hint=f"--{given}")
