"""``adapters combine``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from cli.commands.inspect import show_interference
from cli.commands.merge import STORED, Dtype, weighted
from cli.context import Session
from cli.rendering import emit, note, say, table
from registry.plans.combining import LINEAR, METHODS

if TYPE_CHECKING:
    from registry.operations.combine import Combined

#: What ``--rank auto`` keeps unless --energy says otherwise.
_ENERGY = 0.99


def combine(
    session: Session,
    adapters: Annotated[
        list[str],
        Argument(metavar="ADAPTER[=WEIGHT]…", help="Directories, references or hf://OWNER/NAME@REV; a weight is 1."),
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
    method: Annotated[
        str, Option(metavar="METHOD", help=f"linear, or one in delta space: {', '.join(METHODS)}.")
    ] = LINEAR,
    density: Annotated[
        float, Option(metavar="SHARE", min=0.0, max=1.0, help="The share of elements that ties, dare, della … keep.")
    ] = 0.5,
    seed: Annotated[int, Option(help="For the methods that draw at random.")] = 0,
    dtype: Annotated[
        Dtype, Option(help="The type of the result's factors; keep: the widest of the inputs.")
    ] = Dtype.keep,
) -> None:
    """Add adapters up to one adapter: Σ weight · delta, exactly, whatever their ranks and targets.

    The factors are stacked, with weights and scalings folded in; a truncation (--rank, --energy) is the best there is, and
    what it leaves away is said, layer by layer. Weights may be negative. The result is read back and measured.
    Other methods work on the deltas themselves; the result keeps at most the sum of the ranks, or --rank.

    Exit code 6: there is no sum (DoRA, other bases, differing heads …); every reason is said, and nothing was written.

    Example: adapters combine law=0.7 style=0.3 -o ./both --rank 16
    """
    if output is None and name is None:
        raise BadParameter("say where to: -o DIR, or --name NAME", param_hint="--output")
    if method not in (LINEAR, *METHODS):
        raise BadParameter(f"{method!r} is none of {', '.join((LINEAR, *METHODS))}", param_hint="--method")
    if not density:
        raise BadParameter("a share of 0 leaves nothing", param_hint="--density")
    most, share = kept(rank, energy)
    asked = [weighted(text) for text in adapters]
    if len(asked) > 1 and not (session.json or session.quiet):
        show_interference(session.registry.interference(asked))
    done = session.registry.combine(
        asked,
        output,
        name=name,
        method=method,
        rank=most,
        energy=share,
        density=density,
        seed=seed,
        dtype=STORED.get(dtype),
    )
    if session.json:
        emit(done.document())
        return
    for finding in done.findings:
        if finding.severity.value == "warning":
            note(f"warning: {finding.message} [{finding.rule}]", quiet=session.quiet, style="yellow")
    show_combined(done, truncated=most is not None or share is not None or method != LINEAR)
    places = [str(place) for place in (output, done.version.reference if done.version else None) if place is not None]
    say(f"{', '.join(adapters)} → {', '.join(places)}")


def kept(rank: str, energy: float | None) -> tuple[int | None, float | None]:
    """The most that a layer keeps, and the least share of its energy; None for no limit."""
    if energy is not None and not 0 < energy <= 1:
        raise BadParameter(f"{energy:g} is no share between 0 and 1", param_hint="--energy")
    if rank == "exact" and energy is None:
        return None, None
    if rank in ("auto", "exact"):
        return None, energy if energy is not None else _ENERGY
    if not rank.isdecimal() or int(rank) < 1:
        raise BadParameter(f"{rank!r} is neither exact, auto nor a whole number from 1 on", param_hint="--rank")
    return int(rank), energy


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
        f"{len(done.layers)} layers of rank {spread}, ‖Δ‖ {done.norm:.6g}, "
        f"{'nothing' if not done.discarded else f'{done.discarded:.2%}'} discarded, error {done.error:.1e} of the norm"
    )
