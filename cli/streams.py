"""Output where not every character can be written: a pipe or terminal whose encoding is not UTF-8."""

from __future__ import annotations

import codecs
import os
import sys
from io import TextIOWrapper
from typing import TextIO

_HANDLER = "adapters-spelled"
#: What the command itself says beyond ASCII. What adapters say is escaped.
_SPELLED = {
    "→": "->", "←": "<-", "…": "...", "–": "-", "−": "-", "×": "x", "·": "*", "±": "+-", "≥": ">=", "≤": "<=",
    "✓": "+", "✗": "x", "‖": "||", "Δ": "D", "Σ": "sum ", "σ": "sigma", "²": "^2", "█": "#", "▇": "#", "▆": "=",
    "▅": "=", "▄": "-", "▃": "-", "▂": ".", "▁": ".",
}  # fmt: skip


def spell_out() -> None:
    """From now on no character stops the output of this process, whatever its streams can hold."""
    codecs.register_error(_HANDLER, _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def let_go(stream: TextIO) -> None:
    """The reader left (``adapters list | head``): what else is said goes nowhere, and the exit code stays what it is."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def put(text: str, stream: TextIO) -> None:
    """At once, whether somebody reads it or not."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        let_go(stream)


def is_unicode(stream: object) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = _SPELLED.get(error.object[error.start])
    if found is None:
        error.end = error.start + 1
        return codecs.backslashreplace_errors(error)
    return found, error.start + 1
