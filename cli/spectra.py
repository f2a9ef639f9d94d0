"""``adapters inspect --plot``: the spectra of an adapter as a picture, a row for each layer.

| column | what is in it |
|---|---|
| spectrum | a cell for each singular value, darker the nearer it is to the layer's largest; white from a thousandth on |
| rank | as wide as the rank the layer has, filled as far as it needs it |
| ‖Δ‖ | against the largest, or with a base each delta's share of its weight |
"""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING

from cli.pictures import drawing, label, rectangle, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.operations.inspect import Inspected

#: Powers of ten between the darkest cell and white.
_DECADES = 3
#: Singular values of a layer that are drawn.
MOST_VALUES = 128
_ROW, _TOP, _GAP = 14, 40, 16
_NAME, _SPECTRUM, _BAR, _NUMBER = 370, 420, 120, 64


def picture(done: Inspected) -> str:
    width = _NAME + _SPECTRUM + 2 * (_GAP + _BAR + _NUMBER)
    return drawing(width, _TOP + _ROW * len(done.layers) + _GAP, "".join(_parts(done)))


def level(value: float, largest: float) -> float:
    """How dark a singular value is: 1 for the largest, 0 from a thousandth of it on."""
    if value <= 0 or largest <= 0:
        return 0.0
    return max(0.0, 1 + (log10(value) - log10(largest)) / _DECADES)


def sizes(done: Inspected) -> tuple[str, list[float]]:
    """What the last column shows, and of which size each layer is in it."""
    if done.shares:
        return "‖Δ‖ / ‖W‖", [done.shares.get(layer.path, 0.0) for layer in done.layers]
    return "‖Δ‖", [layer.norm for layer in done.layers]


def _parts(done: Inspected) -> Iterator[str]:
    title, found = sizes(done)
    ranks = max((layer.rank for layer in done.layers), default=1)
    columns = min(max((len(layer.values) for layer in done.layers), default=1), MOST_VALUES)
    largest = max(found, default=0.0)
    cell = _SPECTRUM / columns
    bar, size = _NAME + _SPECTRUM + _GAP, _NAME + _SPECTRUM + 2 * _GAP + _BAR + _NUMBER
    for x, word in ((0, "layer"), (_NAME, "spectrum"), (bar, "rank: needs / has"), (size, title)):
        yield f'<text class="h" x="{x}" y="{_TOP - _GAP}">{text(word)}</text>'
    for number, (layer, share) in enumerate(zip(done.layers, found, strict=True)):
        y = _TOP + _ROW * number
        base, height = y + _ROW - 4, _ROW - 3
        yield f"<g><title>{text(layer.path)}</title>"
        yield f'<text x="0" y="{base}">{text(label(layer.path))}</text>'
        top = layer.values[0] if layer.values else 0.0
        for column, value in enumerate(layer.values[:columns]):
            dark = level(value, top)
            if dark:
                yield rectangle(_NAME + column * cell, y, cell, height, opacity=dark)
        if not layer.norm:
            yield f'<text x="{_NAME}" y="{base}">does nothing</text>'
        yield rectangle(bar, y, _BAR * layer.rank / ranks, height, opacity=0.2)
        if layer.norm:
            yield rectangle(bar, y, _BAR * layer.sufficient_rank / ranks, height, opacity=0.8)
        yield f'<text class="n" x="{bar + _BAR + _NUMBER - 4}" y="{base}">{layer.sufficient_rank} / {layer.rank}</text>'
        if largest:
            yield rectangle(size, y, _BAR * share / largest, height, opacity=0.8)
        shown = f"{share:.2%}" if done.shares else f"{share:.4g}"
        yield f'<text class="n" x="{size + _BAR + _NUMBER - 4}" y="{base}">{shown}</text></g>'
