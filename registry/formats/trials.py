"""The record of a search for weights, JSON Lines: what is searched, then every trial in the order it was made.

::

    {"search": {"adapters": ["sha256:…", "sha256:…"], "bounds": [-1.5, 1.5], "score": "python score.py {dir}", …}}
    {"trial": 1, "weights": [0.7, 0.3], "score": 0.81, "error": null}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from registry.errors import MalformedFileError
from registry.formats.json_lines import parse_json_lines

_MOST = 64 << 20


@dataclass(frozen=True, slots=True)
class Trial:
    """``score`` is None for a trial that failed; then ``error`` says why."""

    number: int
    weights: tuple[float, ...]
    score: float | None
    error: str | None = None

    def document(self) -> dict[str, object]:
        return {"trial": self.number, "weights": list(self.weights), "score": self.score, "error": self.error}


def parse_trials(data: bytes, *, where: str) -> tuple[Mapping[str, object], Sequence[Trial]]:
    """What was searched, and the trials. A last line without its end is what a killed search left, and not read.

    Raises MalformedFileError for anything else."""
    whole = data[: data.rfind(b"\n") + 1]
    lines = parse_json_lines(whole, where=where, max_bytes=_MOST)
    head = lines[0].get("search") if lines and isinstance(lines[0], dict) else None
    if not isinstance(head, dict):
        raise MalformedFileError(where, "is no record of a search for weights", hint="give another --trials")
    return head, [_trial(value, f"{where}:{number}") for number, value in enumerate(lines[1:], 2)]


def line_of(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _trial(value: object, where: str) -> Trial:
    raw = value if isinstance(value, dict) else {}
    number, weights, score, error = (raw.get(name) for name in ("trial", "weights", "score", "error"))
    sound = (
        isinstance(number, int)
        and isinstance(weights, list)
        and all(_is_number(weight) for weight in weights)
        and (_is_number(score) or (score is None and isinstance(error, str)))
    )
    if not sound or not isinstance(number, int) or not isinstance(weights, list):
        raise MalformedFileError(
            where, "is no trial of a search for weights", hint="remove the line; it is tried again"
        )
    return Trial(
        number,
        tuple(float(weight) for weight in weights),
        float(score) if isinstance(score, int | float) else None,
        error if isinstance(error, str) else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
