"""What ``combine``, ``rerank`` and ``interference`` have in common: where to and how much, and what is said of a sum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from typer import BadParameter, Option

from cli.exits import usage
from cli.rendering import counted, say, size, table
from cli.tensor_options import byte_count
from registry.plans.combining import Method

if TYPE_CHECKING:
    from registry.operations.combined import Combined
    from registry.operations.inspect import Interference

#: What ``--rank auto`` keeps unless --energy says otherwise.
_ENERGY = 0.99
OUTPUT = Annotated[Path | None, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")]
NAME = Annotated[str | None, Option(metavar="NAME", help="Store the result as the next version of NAME.")]
ENERGY = Annotated[
    float | None, Option(metavar="SHARE", help="Keep the smallest rank with this share of Σσ² (auto: 0.99).")
]
MAX_BYTES = Annotated[
    str | None, Option(metavar="SIZE", help="Choose the ranks so that the file has at most so much: 20MB.")
]


def require_place(output: Path | None, name: str | None) -> None:
    if output is None and name is None:
        raise BadParameter("say where to: -o DIR, or --name NAME", param_hint="--output")


class Limits(TypedDict):
    """Of :class:`registry.plans.combining.Method`."""

    rank: int | None
    energy: float | None
    max_bytes: int | None


def limits(
    rank: str, energy: float | None, max_bytes: str | None, *, words: Sequence[str] = ("exact", "auto")
) -> Limits:
    """``words`` are what ``rank`` may be besides a number."""
    room = byte_count(max_bytes, "--max-bytes") if max_bytes is not None else None
    with usage():
        Method(energy=energy, max_bytes=room)
    if rank in words:
        if rank == "auto" and room is None:
            energy = energy or _ENERGY
        return {"rank": None, "energy": energy, "max_bytes": room}
    if not (rank.isascii() and rank.isdecimal()) or int(rank) < 1:
        raise BadParameter(f"{rank!r} is neither {', '.join(words)} nor a whole number from 1 on", param_hint="--rank")
    return {"rank": int(rank), "energy": energy, "max_bytes": room}


def show_interference(done: Interference) -> None:
    table(
        (
            "adapter",
            "weight",
            "‖Δ‖",
            *(f"cos {number}" for number in range(1, len(done.names) + 1)),
            "kept",
            "disturbance",
        ),
        [
            (
                f"{number} {name}",
                f"{weight:g}",
                norm,
                *(f"{cosine:+.3f}" for cosine in cosines),
                f"{kept:.2f}",
                f"{disturbance:.2f}",
            )
            for number, (name, weight, norm, cosines, kept, disturbance) in enumerate(
                zip(done.names, done.weights, done.norms, done.cosines, done.kept, done.disturbance, strict=True), 1
            )
        ],
        right=("weight", "‖Δ‖", "kept", "disturbance"),
        shrink=("adapter",),
    )
    say(conflicts(done))


def conflicts(done: Interference) -> str:
    return f"signs conflict in {done.conflicts:.1%} of the elements"


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
