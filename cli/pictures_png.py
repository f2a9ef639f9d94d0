"""The pictures of :mod:`cli.spectra` and :mod:`cli.heat_map` as PNG, by matplotlib."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING

from cli.pictures import INK, label
from cli.spectra import MOST_VALUES, level, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from registry.operations.inspect import Inspected, Interference

#: Inches of a row, and of the whole picture at most: libpng writes no more than 65,535 rows of pixels.
_ROW, _TALLEST, _DPI = 0.16, 300.0, 120
_WIDEST = 40.0
#: Adapters up to which each cell has its number.
_NUMBERED = 24


def spectra(done: Inspected, verdict: str) -> bytes:
    from matplotlib.figure import Figure  # without pyplot, so that no window system is asked

    title, found = sizes(done)
    rows = range(len(done.layers))
    columns = min(max((len(layer.values) for layer in done.layers), default=1), MOST_VALUES)
    cells = [
        [level(value, layer.values[0]) for value in layer.values[:columns]] + [0.0] * (columns - len(layer.values))
        for layer in done.layers
    ]
    figure = Figure(figsize=(14, min(1.6 + _ROW * len(rows), _TALLEST)), dpi=_DPI, layout="constrained")
    spectrum, rank, size = figure.subplots(1, 3, sharey=True, width_ratios=[4, 1.5, 1.5])
    figure.suptitle(f"{label(done.subject)}: {verdict}", parse_math=False)
    if cells:
        extent = (0.5, columns + 0.5, len(cells) - 0.5, -0.5)  # ranks count from 1
        spectrum.imshow(cells, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    spectrum.set_title("spectrum")
    spectrum.set_yticks(rows, [label(layer.path) for layer in done.layers], fontsize=7, parse_math=False)
    rank.barh(rows, [layer.rank for layer in done.layers], color=INK, alpha=0.2)
    rank.barh(rows, [layer.sufficient_rank if layer.norm else 0 for layer in done.layers], color=INK, alpha=0.8)
    rank.set_title("rank: needs / has")
    size.barh(rows, found, color=INK, alpha=0.8)
    size.set_title(title)
    return _saved(figure)


def heat_map(done: Interference, verdict: str) -> bytes:
    from matplotlib.figure import Figure

    names = [label(name) for name in done.names]
    rows = range(len(names))
    side = min(3.0 + 0.6 * len(names), _WIDEST)
    figure = Figure(figsize=(side + 2, side), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(verdict, parse_math=False)
    drawn = axes.imshow(done.cosines, cmap="RdBu", vmin=-1, vmax=1, alpha=0.7, interpolation="nearest")
    figure.colorbar(drawn, label="cosine of the deltas")
    axes.set_xticks(rows, [str(number + 1) for number in rows])
    axes.set_yticks(rows, [f"{number + 1} {name}" for number, name in enumerate(names)], fontsize=7, parse_math=False)
    if len(names) <= _NUMBERED:
        for row, cosines in enumerate(done.cosines):
            for column, cosine in enumerate(cosines):
                axes.text(column, row, f"{cosine:+.2f}", ha="center", va="center", fontsize=7)
    return _saved(figure)


def _saved(figure: Figure) -> bytes:
    data = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a name in a script that the font lacks
        figure.savefig(data, format="png")
    return data.getvalue()
