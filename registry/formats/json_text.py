"""JSON from strangers: strict where two readers could disagree, bounded where one reader could be exhausted.

The law: any bytes give either a value or one error of the family asked for. Never ``RecursionError``, never
``ValueError`` from an integer of too many digits, never a string that cannot be written back as UTF-8.

Syntax is that of RFC 8259 as Python's ``json`` reads it. Its section 4 leaves repeated names to the reader; here a
name repeated with another value is refused, since the next reader may believe the other one. Work is linear in size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import accumulate
from typing import NoReturn

from registry.errors import MalformedFileError
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error

#: Far beyond any number with a meaning, far below where ``int(text)`` (quadratic) costs a noticeable time.
MAX_DIGITS = 1000

# Possessive (``*+``), so that neither time nor memory grows with what could be tried again; an unterminated string
# reaches to the end. Works on bytes: no byte of a longer UTF-8 sequence equals a quote or a backslash.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_UNFINISHED_WORD = re.compile(r"[-+.\w]*")
_OTHER_BYTES = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_BOM = b"\xef\xbb\xbf"

# Two JSON values are the same when they are spelt the same; ``==`` would take 1 for true and NaN for not NaN.
_spelt = json.JSONEncoder(sort_keys=True).encode

#: ``fail(problem, code=None, hint=None)`` builds the error to raise.
Fail = Callable[[str, str | None, str | None], MalformedFileError]


def parse_json(
    data: bytes,
    *,
    where: str,
    max_bytes: int = 1 << 20,
    max_depth: int = 32,
    error: type[MalformedFileError] = MalformedFileError,
    forbid_constants: bool = False,
) -> object:
    """The value that ``data`` (UTF-8, a byte-order mark is tolerated) spells, or ``error`` about ``where``.

    :param max_bytes: length of ``data`` that is still read.
    :param max_depth: arrays and objects inside each other that are still read; ``[[1]]`` has depth 2.
    :param forbid_constants: refuse NaN and infinities, also one written ``1e400``.

    A name repeated in one object is tolerated when its values are the same, refused when they differ.
    Codes: ``lfs-pointer``; ``truncated-file`` for text that is empty or ends in the middle; else the error's own.
    """

    def fail(problem: str, code: str | None, hint: str | None) -> MalformedFileError:
        return error(where, problem, code=code, hint=hint)

    def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) < len(pairs):
            _refuse_contradiction(pairs, fail)
        return result

    def infinite(text: str) -> NoReturn:
        raise fail(f"holds the number {text:.40}, which is not finite", None, "write a finite number, or null")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else infinite(text)

    if is_lfs_pointer(data):
        raise lfs_pointer_error(where, error)
    if len(data) > max_bytes:
        raise fail(
            f"is {len(data):,} bytes long, more than the {max_bytes:,} that are read",
            None,
            "check that this is the right file; a real one is a few kilobytes",
        )
    value = load_json(
        data.removeprefix(_BOM),
        fail=fail,
        max_depth=max_depth,
        object_pairs_hook=object_of,
        parse_constant=infinite if forbid_constants else float,
        parse_float=finite if forbid_constants else float,
    )
    if _SURROGATE_ESCAPE.search(data):
        _refuse_lone_surrogates(value, fail)
    return value


def load_json(
    data: bytes,
    *,
    fail: Fail,
    max_depth: int,
    object_pairs_hook: Callable[[list[tuple[str, object]]], object],
    parse_constant: Callable[[str], object],
    parse_float: Callable[[str], object],
    parse_int: Callable[[str], object] = int,
) -> object:
    """``json.loads`` behind the bounds, for readers with rules of their own; whatever it cannot read becomes ``fail``.

    Length, repeated names and lone surrogates are the caller's to judge.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        column = wrong.start - data.rfind(b"\n", 0, wrong.start)
        raise fail(
            f"is not UTF-8 text: byte 0x{data[wrong.start]:02x} in line {line}, at byte {column} of that line",
            None,
            "save it as UTF-8, or check that this is the right file",
        ) from None
    outline = _STRING.sub(b"", data)
    if nesting(outline) > max_depth:
        raise fail(
            f"nests arrays or objects more than {max_depth} deep",
            None,
            "check that this is the right file; no known writer nests that deep",
        )
    if _LONG_NUMBER.search(outline):
        raise fail(f"holds a number of more than {MAX_DIGITS:,} digits", None, "write the number that was meant")
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=object_pairs_hook,
            parse_constant=parse_constant,
            parse_float=parse_float,
            parse_int=parse_int,
        )
    except json.JSONDecodeError as wrong:
        _refuse_syntax(text, wrong, fail)
    return value


def nesting(outline: bytes) -> int:
    """The deepest level of ``[`` and ``{`` in JSON without its strings, broken or not; found without recursion."""
    steps = outline.translate(_STEPS, _OTHER_BYTES)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _refuse_syntax(text: str, wrong: json.JSONDecodeError, fail: Fail) -> NoReturn:
    stripped = text.rstrip()
    if not stripped:
        raise fail("is empty", "truncated-file", "get the file again: its download or save did not happen") from None
    cut_off = wrong.msg.startswith("Unterminated string") or (
        wrong.pos > 0 and wrong.msg != "Extra data" and _UNFINISHED_WORD.fullmatch(stripped, wrong.pos) is not None
    )
    if cut_off:
        line = stripped.count("\n") + 1
        column = len(stripped) - stripped.rfind("\n")
        raise fail(
            f"ends in the middle, line {line} column {column}",
            "truncated-file",
            "get the file again: its download or save was interrupted",
        ) from None
    reason = wrong.msg.removesuffix(" at")
    raise fail(
        f"is not JSON: {reason[:1].lower()}{reason[1:]}, line {wrong.lineno} column {wrong.colno}",
        None,
        "correct that place, or write the file again with the tool that made it",
    ) from None


def _refuse_contradiction(pairs: list[tuple[str, object]], fail: Fail) -> None:
    seen: dict[str, object] = {}
    for name, value in pairs:
        if name in seen and value is not seen[name] and _spelt(seen[name]) != _spelt(value):
            raise fail(
                f"gives {name!r:.80} twice in one object, with different values",
                None,
                "keep the one that is meant; readers disagree about which of the two counts",
            )
        seen[name] = value


def _refuse_lone_surrogates(value: object, fail: Fail) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as wrong:
        escape = f"\\u{ord(wrong.object[wrong.start]):04x}"
        raise fail(
            f"holds half a character, the lone surrogate {escape}, in a string",
            None,
            "write the character itself, or both halves of its escape",
        ) from None
