"""``gate.toml``: which scores must hold before an alias may move.

::

    against = "production"
    min = ["acc>=0.80", "arc_easy/acc_norm>=0.5"]
    no-regression = ["acc", "perplexity:0.1"]
    noise = 1.96

Every key may be left away. An unknown key is refused: a condition that is misspelt would be one that always holds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from math import inf
from typing import NoReturn, TypeVar

from registry.domain.evaluation import NOISE
from registry.domain.gate import Gate, NoRegression
from registry.domain.query import MetricCondition
from registry.errors import InvalidValueError, MalformedFileError
from registry.formats.plain_data import finite, text

#: Hundreds of conditions; tomllib needs most of a second for the worst 16 KiB, and the square of it for more.
MAX_BYTES = 1 << 14

_KEYS = ("against", "min", "no-regression", "noise")
_Condition = TypeVar("_Condition")


def parse_gate(data: bytes, *, where: str) -> Gate:
    """Raises MalformedFileError, code ``malformed-gate``, naming the key and the entry at fault."""
    if len(data) > MAX_BYTES:
        _refuse(where, f"has more than {MAX_BYTES:,} bytes", "check that this is the right file")
    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        _refuse(where, "is not UTF-8 text", "check that this is the right file")
    except (ValueError, RecursionError) as error:
        _refuse(where, f"is not TOML: {error!s:.200}", 'lines such as: min = ["acc>=0.8"]')
    for key in document:
        if key not in _KEYS:
            _refuse(where, f"has the unknown key {key!r:.60}", f"the keys are {', '.join(_KEYS)}")
    against = text(document.get("against"))
    if "against" in document and against is None:
        _refuse(where, "against is not an alias or a reference", 'such as: against = "production"')
    noise = finite(document.get("noise", NOISE))
    if noise is None or not 0 <= noise < inf:
        _refuse(where, "noise is not a number from 0", "how many standard errors are chance, such as: noise = 1.96")
    return Gate(
        minimums=_conditions(document, "min", MetricCondition.parse, where),
        no_regressions=_conditions(document, "no-regression", NoRegression.parse, where),
        against=against,
        noise=noise,
    )


def _conditions(
    document: Mapping[str, object], key: str, parse: Callable[[str], _Condition], where: str
) -> tuple[_Condition, ...]:
    listed = document.get(key, [])
    example = {"min": 'min = ["acc>=0.8"]', "no-regression": 'no-regression = ["acc:0.01"]'}[key]
    if not isinstance(listed, list):
        _refuse(where, f"{key} is not a list", f"such as: {example}")
    found = []
    for place, each in enumerate(listed, start=1):
        if not isinstance(each, str):
            _refuse(where, f"{key}, entry {place}, is not a text", f"such as: {example}")
        try:
            found.append(parse(each))
        except InvalidValueError as error:
            _refuse(where, f"{key}, entry {place}: {error.message}", f"such as: {example}")
    return tuple(found)


def _refuse(where: str, problem: str, hint: str) -> NoReturn:
    raise MalformedFileError(where, problem, code="malformed-gate", hint=hint) from None
