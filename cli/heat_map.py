"""``adapters interference --plot``: how each adapter lies to each other, as a heat map of cosines.

Blue pairs point the same way, so that a sum has them more than once; red ones undo each other; white ones do not meet. Beside each
adapter stands how much of it is kept in the sum, and how much else there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.pictures import INK, OTHER_INK, drawing, label, rectangle, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.operations.inspect import Interference

_CELL, _TOP, _NAME, _COLUMN, _GAP = 44, 40, 370, 90, 16


def picture(done: Interference) -> str:
    side = _CELL * len(done.names)
    return drawing(_NAME + side + 3 * _COLUMN + _GAP, _TOP + side + _GAP, "".join(_parts(done)))


def _parts(done: Interference) -> Iterator[str]:
    right = _NAME + _CELL * len(done.names)
    yield f'<text class="h" x="0" y="{_TOP - _GAP}">adapter</text>'
    for column, word in enumerate(("weight", "kept", "disturbance"), 1):
        yield f'<text class="h n" x="{right + column * _COLUMN}" y="{_TOP - _GAP}">{word}</text>'
    rows = zip(done.names, done.cosines, done.weights, done.kept, done.disturbance, strict=True)
    for row, (name, cosines, weight, kept, disturbance) in enumerate(rows):
        y = _TOP + row * _CELL
        base = y + _CELL / 2 + 4
        middle = _NAME + row * _CELL + _CELL / 2
        yield f'<text class="m" x="{middle}" y="{_TOP - 4}">{row + 1}</text>'
        yield f"<g><title>{text(name)}</title>"
        yield f'<text x="0" y="{base}">{row + 1} {text(label(name))}</text>'
        for column, cosine in enumerate(cosines):
            x = _NAME + column * _CELL
            ink = INK if cosine >= 0 else OTHER_INK
            yield rectangle(x, y, _CELL - 2, _CELL - 2, opacity=min(abs(cosine), 1.0) * 0.8, ink=ink)
            yield f'<text class="m" x="{x + _CELL / 2}" y="{base}">{cosine:+.2f}</text>'
        for column, number in enumerate((f"{weight:g}", f"{kept:.3g}", f"{disturbance:.3g}"), 1):
            yield f'<text class="n" x="{right + column * _COLUMN}" y="{base}">{number}</text>'
        yield "</g>"
