"""What ``--plot`` draws: where it may go, and the page around it.

Names of tensors and directories are a stranger's: everything is escaped, and a page allows itself neither script nor network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from html import escape
from importlib.util import find_spec
from pathlib import Path

from typer import BadParameter

from cli.rendering import safe
from registry.errors import OutputExistsError, UnavailableError

#: Endings that a picture can have.
KINDS = (".html", ".png", ".svg")
INK, OTHER_INK = "#1f4e79", "#a03020"
#: Characters of a name.
_LONGEST = 52
_STYLE = "text{font:11px ui-monospace,monospace;fill:#222}.h{font-weight:bold}.n{text-anchor:end}.m{text-anchor:middle}"
_PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<title>{title}</title><style>body{{font:14px system-ui,sans-serif;margin:24px;background:#fff;color:#222}}</style>"
    "</head><body><h1>{title}</h1><p>{verdict}</p>{picture}</body></html>\n"
)


def require_place(path: Path) -> None:
    """Before anything is computed: the ending says what kind, and nothing is overwritten."""
    if path.suffix.lower() not in KINDS:
        raise BadParameter(f"{path} ends in none of {', '.join(KINDS)}", param_hint="--plot")
    if os.path.lexists(path):
        raise OutputExistsError(f"{path} is there already", hint="give another --plot, or remove it")
    if path.suffix.lower() == ".png" and find_spec("matplotlib") is None:
        raise UnavailableError(
            "a PNG is drawn by matplotlib, and that is not installed",
            code="plot-missing",
            hint="pip install 'adapter-registry[plot]', or ask for an .html, which needs nothing",
        )


def save(path: Path, title: str, verdict: str, *, svg: Callable[[], str], png: Callable[[], bytes]) -> None:
    """Complete or not at all; raises UnavailableError where it cannot be written."""
    kind = path.suffix.lower()
    if kind == ".png":
        data = png()
    else:
        data = (page(title, verdict, svg()) if kind == ".html" else svg()).encode()
    try:
        with open(path, "xb") as file:
            try:
                file.write(data)
            except OSError:
                with suppress(OSError):
                    os.unlink(path)
                raise
    except OSError as error:
        raise UnavailableError(
            f"cannot write {path}: {error.strerror or error}", hint="give a --plot in a directory that is there"
        ) from error


def page(title: str, verdict: str, picture: str) -> str:
    return _PAGE.format(title=text(title), verdict=text(verdict), picture=picture)


def drawing(width: float, height: float, parts: str) -> str:
    """As SVG."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{parts}</svg>\n'
    )


def rectangle(x: float, y: float, width: float, height: float, *, opacity: float, ink: str = INK) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{ink}" fill-opacity="{opacity:.2f}"/>'


def label(name: str) -> str:
    """The end of a name, which tells layers apart, on one line."""
    shown = safe(name).replace("\n", "\\n")
    return shown if len(shown) <= _LONGEST else f"…{shown[1 - _LONGEST :]}"


def text(content: str) -> str:
    return escape(safe(content), quote=True)
