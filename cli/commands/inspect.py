"""``adapters inspect``, ``diff``, ``interference``: what adapters are made of, and how they lie to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from cli.combining import conflicts, show_interference
from cli.context import Session
from cli.rendering import counted, emit, note, say, table
from cli.tensor_options import weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.operations.inspect import Inspected, Interference

_BARS = "▁▂▃▄▅▆▇█"
#: Singular values that a line shows.
_SHOWN = 16


def inspect(
    session: Session,
    subject: Annotated[str, Argument(metavar="REF|DIR", help="A version in the registry, or an adapter's directory.")],
    base: Annotated[
        str | None, Option(metavar="BASE", help="The base's checkpoint, to know each delta's share of its weight.")
    ] = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Draw it as well: .html or .svg, or .png with matplotlib.")
    ] = None,
) -> None:
    """The spectrum of every layer: the rank it has, and needs.

    `needs` is the smallest rank that keeps 99 % of the energy, `effective` counts directions by the entropy of the
    spectrum. The bars are the singular values, the largest first.

    Example: adapters inspect my-lora --base ./llama --plot spectra.html
    """
    if plot is not None:
        from cli.pictures import require_place

        require_place(plot)
    done = session.registry.inspect(subject, base=base)
    if plot is not None:
        _draw_spectra(done, plot)
    if session.json:
        emit(done.document())
        return
    table(
        ("layer", "rank", "needs", "effective", "‖Δ‖", "of ‖W‖", "spectrum"),
        [
            (
                one.path,
                one.rank,
                one.sufficient_rank,
                f"{one.effective_rank:.1f}",
                one.norm,
                f"{done.shares[one.path]:.2%}" if one.path in done.shares else "",
                bars(one.values),
            )
            for one in done.layers
        ],
        right=("rank", "needs", "effective", "‖Δ‖", "of ‖W‖"),
        shrink=("layer",),
    )
    say(f"{done.subject}: {_verdict(done)}{f' → {plot}' if plot is not None else ''}")
    if done.left_out:
        note(f"not in these figures, because it is no pair of factors: {', '.join(done.left_out)}", quiet=session.quiet)


def _draw_spectra(done: Inspected, plot: Path) -> None:
    from cli.pictures import save
    from cli.spectra import picture

    def png() -> bytes:
        from cli.pictures_png import spectra

        return spectra(done, _verdict(done))

    save(plot, done.subject, _verdict(done), svg=lambda: picture(done), png=png)


def _verdict(done: Inspected) -> str:
    ranks = max((one.rank for one in done.layers), default=0)
    needs = (
        f"it needs rank {done.sufficient_rank}, not {ranks}"
        if done.sufficient_rank < ranks
        else f"it uses its rank, {ranks}"
    )
    dead = f"; {counted(len(done.dead), 'layer')} without effect" if done.dead else ""
    return f"‖Δ‖ {done.norm:.6g}; {needs}{dead}"


def diff(
    session: Session,
    one: Annotated[str, Argument(metavar="A", help="A version in the registry, or an adapter's directory.")],
    other: Annotated[str, Argument(metavar="B", help="The other.")],
) -> None:
    """Compare two adapters layer by layer.

    By the cosine of their deltas, the ratio of their norms, and the spaces they write to.

    Example: adapters diff my-lora@1 my-lora@2
    """
    done = session.registry.diff(one, other)
    if session.json:
        emit(done.document())
        return
    table(
        ("layer", "cosine", "‖A‖", "‖B‖", "angles"),
        [
            (layer.path, f"{layer.cosine:+.3f}", layer.norm, layer.other_norm, bars(layer.angles, largest=1.0))
            for layer in done.layers
        ],
        right=("cosine", "‖A‖", "‖B‖"),
        shrink=("layer",),
    )
    for name, paths in ((done.one, done.only_one), (done.other, done.only_other)):
        if paths:
            say(f"only {name} has {len(paths)}: {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''}")
    say(f"cosine {done.cosine:+.4f}, ‖A‖ {done.norm:.6g}, ‖B‖ {done.other_norm:.6g}")


def interference(
    session: Session,
    adapters: Annotated[list[str], Argument(metavar="ADAPTER[=WEIGHT]", help="At least two; a weight is 1.")],
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Draw a heat map as well: .html or .svg, or .png with matplotlib.")
    ] = None,
) -> None:
    """Foresee what adapters do to each other in their sum.

    `kept` is how much of an adapter is in the sum along its own direction (1: as if alone), `disturbance` how much of
    anything else, in units of its own norm.

    Example: adapters interference law=0.7 style=0.3
    """
    if len(adapters) < 2:
        raise BadParameter("name at least two adapters", param_hint="ADAPTER")
    if plot is not None:
        from cli.pictures import require_place

        require_place(plot)
    done = session.registry.interference([weighted(text) for text in adapters])
    if plot is not None:
        _draw_heat_map(done, plot)
    if session.json:
        emit(done.document())
        return
    show_interference(done)


def _draw_heat_map(done: Interference, plot: Path) -> None:
    from cli.heat_map import picture
    from cli.pictures import save

    def png() -> bytes:
        from cli.pictures_png import heat_map

        return heat_map(done, conflicts(done))

    save(plot, f"{len(done.names)} adapters", conflicts(done), svg=lambda: picture(done), png=png)


def bars(values: Sequence[float], *, largest: float | None = None) -> str:
    """``▇▅▃▁``: each value against the largest."""
    top = largest if largest is not None else max(values, default=0.0)
    if not top:
        return ""
    steps = len(_BARS) - 1
    return "".join(_BARS[min(round(max(value, 0.0) / top * steps), steps)] for value in values[:_SHOWN])
