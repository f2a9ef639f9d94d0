"""``adapters combine``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from typer import Argument, BadParameter, Option

from cli.commands.inspect import show_interference
from cli.commands.merge import DENSITY, METHOD, STORED, Dtype, blend_of, byte_count, weighted
from cli.context import Session
from cli.exits import usage
from cli.rendering import counted, emit, note, say, size, table
from cli.searching import show_search, wanted
from registry.plans.combining import LINEAR, require_share

if TYPE_CHECKING:
    from registry.operations.combined import Combined

#: What ``--rank auto`` keeps unless --energy says otherwise.
_ENERGY = 0.99
_SEARCH = "With --search"


def combine(
    session: Session,
    adapters: Annotated[
        list[str],
        Argument(metavar="ADAPTER[=WEIGHT]", help="Directories, references or hf://OWNER/NAME@REV; a weight is 1."),
    ],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")
    ] = None,
    name: Annotated[str | None, Option(metavar="NAME", help="Store the result as the next version of NAME.")] = None,
    rank: Annotated[
        str,
        Option(metavar="exact|N|auto", help="exact: the sum as it is; N: at most N in each layer; auto: by --energy."),
    ] = "exact",
    energy: Annotated[
        float | None, Option(metavar="SHARE", help="Keep the smallest rank with this share of Σσ² (auto: 0.99).")
    ] = None,
    max_bytes: Annotated[
        str | None, Option(metavar="SIZE", help="Choose the ranks so that the file has at most so much: 20MB.")
    ] = None,
    method: METHOD = LINEAR,
    density: DENSITY = 0.5,
    seed: Annotated[
        int,
        Option(
            metavar="N", help="For what is drawn at random, in any order of adapters: by some methods, and by --search."
        ),
    ] = 0,
    dtype: Annotated[
        Dtype, Option(help="The type of the result's factors; keep: the widest of the inputs.")
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
    if output is None and name is None:
        raise BadParameter("say where to: -o DIR, or --name NAME", param_hint="--output")
    blend_of(method, density, seed)
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
    for finding in done.findings:
        if finding.severity.value == "warning":
            note(f"warning: {finding.message} [{finding.rule}]", quiet=session.quiet, style="yellow")
    show_combined(done, truncated=any(kept.values()) or method != LINEAR)
    if found is not None:
        show_search(found, [one for one, _ in asked])
    places = [str(place) for place in (output, done.version.reference if done.version else None) if place is not None]
    say(f"{', '.join(adapters)} → {', '.join(places)}")


def _refuse_search_options(**options: object) -> None:
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise BadParameter("is about a search: give --search as well", param_hint=f"--{given}")


class Limits(TypedDict):
    """Of :class:`registry.plans.combining.Method`."""

    rank: int | None
    energy: float | None
    max_bytes: int | None


def limits(rank: str, energy: float | None, max_bytes: str | None) -> Limits:
    with usage():
        require_share("energy", energy)
    room = byte_count(max_bytes, "--max-bytes") if max_bytes is not None else None
    if room is not None and energy is not None:
        raise BadParameter("a share of the energy may need more: give one of --energy and --max-bytes")
    if rank == "exact" and energy is None:
        return {"rank": None, "energy": None, "max_bytes": room}
    if rank in ("auto", "exact"):
        return {"rank": None, "energy": None if room is not None else energy or _ENERGY, "max_bytes": room}
    if not (rank.isascii() and rank.isdecimal()) or int(rank) < 1:
        raise BadParameter(f"{rank!r} is neither exact, auto nor a whole number from 1 on", param_hint="--rank")
    return {"rank": int(rank), "energy": energy, "max_bytes": room}


def show_combined(done: Combined, *, truncated: bool) -> None:
    if truncated:
        table(
            ("layer", "rank", "exact", "‖Δ‖", "discarded"),
            [(one.path, one.rank, one.exact_rank, one.norm, f"{one.discarded:.2%}") for one in done.layers],
            right=("rank", "exact", "‖Δ‖", "discarded"),
            shrink=("layer",),
        )
    ranks = sorted({one.rank for one in done.layers})
    spread = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    say(
        f"{counted(len(done.layers), 'layer')} of rank {spread}, ‖Δ‖ {done.norm:.6g}, "
        f"{'nothing' if not done.discarded else f'{done.discarded:.2%}'} discarded, error {done.error:.1e} of the norm, "
        f"{size(done.bytes)}"
    )
