"""Regular expressions from strangers, with the meaning that Python's ``re`` gives them and a bound on what they cost.

PEFT hands ``target_modules`` and the keys of ``rank_pattern`` and ``alpha_pattern`` to ``re``, where 26 characters can
take hours. Here each pattern goes the fastest way on which its meaning is certainly the same:

1. Names, dots and escaped dots are looked up (:mod:`~registry.variants.plain_keys`).
2. What RE2 both understands and means as Python does is matched in linear time.
3. The rest (look-around, back-references, possessive repeats, Unicode …; real configs use look-ahead) is answered by
   ``slow``, which runs Python's own engine where it can be stopped.
4. What none of them answers in time, and what is no regular expression, matches nothing and is in ``unresolved``.

RE2: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import re2

from registry.variants.plain_keys import PlainKeys, is_plain

#: Pairs of a regular expression and a name → does ``re.match`` find it? None: it took too long, or is no expression.
SlowMatcher = Callable[[Sequence[tuple[str, str]]], Sequence[bool | None]]

MAX_PATTERN = 10_000  #: characters of one pattern; the longest in our sample of real configs has 1,100
MAX_NAME = 2_000  #: characters of a module path
MAX_LINEAR = 2_048  #: different patterns for RE2; plain keys are not counted
MAX_SLOW = 64  #: different patterns for the slow matcher
MAX_QUESTIONS = 100_000  #: patterns × names for the slow matcher
CPU_SECONDS = 5.0  #: for everything that one object matches

#: Keys of one table are matched together first, since nearly all say no. More of them need more memory than they spare.
_CHUNK = 16
_MEMORY = 1 << 16  #: bytes for RE2 to compile and match one pattern, which it may well use up if the pattern is hostile
_CHUNK_MEMORY = 1 << 19
_TOO_MUCH = "matching took too long"

#: Compiling these costs much more than their length suggests (big character sets), or makes ``re`` warn.
_NOT_COMPILED_HERE = re.compile(r"[^\x00-\x7f]|\\[uUN]|\[\[|--|&&|~~|\|\|")
#: RE2 accepts these with another meaning: octal and group numbers, POSIX classes, ``{,n}`` and other odd braces.
_MEANT_DIFFERENTLY = re.compile(r"\\\d|\[:|\{(?!(?:0|[1-9]\d*)(?:,(?:0|[1-9]\d*)?)?\})", re.ASCII)
_GLOBAL_FLAGS = re.compile(r"(?:\(\?[aiLmsux]+\))+", re.ASCII)


class _Linear(Protocol):
    """A pattern compiled by RE2."""

    @property
    def pattern(self) -> str: ...

    def match(self, text: str) -> object | None: ...


@dataclass(frozen=True, slots=True)
class _Compiled:
    """``linear`` matches in this process; without it the slow matcher is asked for ``python``."""

    python: str
    linear: _Linear | None


@dataclass(slots=True)
class _Keys:
    """The keys of one pattern table, sorted by who answers for them."""

    plain: PlainKeys
    #: Position → compiled, in chunks, each with one expression for "any of these" if RE2 can hold it.
    linear: list[tuple[_Linear | None, list[tuple[int, _Linear]]]] = field(default_factory=list)
    slow: list[tuple[int, str]] = field(default_factory=list)
    given_up: bool = False


class Patterns:
    """A :class:`~registry.variants.anatomy.PatternMatcher`. One object serves one adapter: its budgets are for life."""

    def __init__(self, slow: SlowMatcher | None = None) -> None:
        self._slow = slow
        self._expected: tuple[str, ...] = ()
        self._compiled: dict[str, _Compiled | None] = {}
        self._keys: dict[tuple[str, ...], _Keys] = {}
        self._answers: dict[tuple[str, str], bool] = {}
        self._unresolved: dict[str, str] = {}
        self._source: dict[str, str] = {}  # full expression → the pattern as the config has it
        self._by_id: dict[int, _Keys] = {}
        self._given_to_slow: set[str] = set()
        self._asked = 0
        self._linear = 0
        self._cpu = CPU_SECONDS

    @property
    def unresolved(self) -> Mapping[str, str]:
        return MappingProxyType(self._unresolved)

    def expect(self, names: Iterable[str]) -> None:
        self._expected = tuple(dict.fromkeys(names))

    def first_key(self, keys: Sequence[str], name: str) -> str | None:
        return next(iter(self.matching_keys(keys, name)), None)

    def matching_keys(self, keys: Sequence[str], name: str) -> list[str]:
        keys = tuple(keys)
        table = self._table(keys)
        if self._cpu <= 0:
            if not table.given_up:
                table.given_up = True
                for key in keys:
                    self._give_up(key, _TOO_MUCH)
            return []
        started = time.thread_time()
        found = table.plain.matching(name) if "\n" not in name else []
        slow = table.slow
        if _is_linear_name(name):
            for anywhere, chunk in table.linear:
                if anywhere is None or anywhere.match(name) is not None:
                    found += [position for position, one in chunk if one.match(name) is not None]
        else:
            slow = [(i, key) for i, key in enumerate(keys) if not is_plain(key) or "\n" in name]
        self._cpu -= time.thread_time() - started
        if slow:
            self._ask([_key_expression(key) for _, key in slow], name)
            found += [i for i, key in slow if self._answers.get((_key_expression(key), name))]
        return [keys[i] for i in sorted(found)]

    def fullmatch(self, pattern: str, name: str) -> bool:
        expression = _whole_expression(pattern)
        compiled = self._compile(pattern, expression)
        if compiled is None:
            return False
        if compiled.linear is not None and _is_linear_name(name):
            if self._cpu <= 0:
                self._give_up(pattern, _TOO_MUCH)
                return False
            started = time.thread_time()
            found = compiled.linear.match(name) is not None
            self._cpu -= time.thread_time() - started
            return found
        self._ask([expression], name)
        return self._answers.get((expression, name), False)

    def _table(self, keys: tuple[str, ...]) -> _Keys:
        table = self._by_id.get(id(keys))  # spares hashing thousands of keys for every name
        if table is None:
            table = self._keys.get(keys)
        if table is None:
            table = self._sorted(keys)
            self._keys[keys] = self._by_id[id(keys)] = table  # which keeps this tuple alive, and its id its own
        return table

    def _sorted(self, keys: tuple[str, ...]) -> _Keys:
        table = _Keys(PlainKeys((i, key) for i, key in enumerate(keys) if is_plain(key)))
        linear: list[tuple[int, _Linear]] = []
        for i, key in enumerate(keys):
            if is_plain(key):
                continue
            compiled = self._compile(key, _key_expression(key))
            if compiled is None:
                continue
            if compiled.linear is None:
                table.slow.append((i, key))
            else:
                linear.append((i, compiled.linear))
        for start in range(0, len(linear), _CHUNK):
            chunk = linear[start : start + _CHUNK]
            union = "|".join(f"(?:{one.pattern})" for _, one in chunk)
            anywhere = _linear(union, _CHUNK_MEMORY) if len(chunk) > 1 else None
            table.linear.append((anywhere, chunk))
        return table

    def _compile(self, pattern: str, expression: str) -> _Compiled | None:
        if expression in self._compiled:
            return self._compiled[expression]
        self._source[expression] = pattern
        compiled: _Compiled | None = None
        if len(pattern) > MAX_PATTERN:
            self._give_up(pattern, f"it is longer than {MAX_PATTERN:,} characters")
        elif self._cpu <= 0:
            self._give_up(pattern, _TOO_MUCH)
        elif _NOT_COMPILED_HERE.search(pattern):
            compiled = _Compiled(expression, None)
        else:
            started = time.thread_time()
            problem = _python_refuses(expression)
            if problem is not None:
                self._give_up(pattern, f"it is no regular expression: {problem}")
            elif _MEANT_DIFFERENTLY.search(pattern):
                compiled = _Compiled(expression, None)
            elif self._linear >= MAX_LINEAR:
                self._give_up(pattern, f"there are more than {MAX_LINEAR:,} patterns")
            else:
                self._linear += 1
                compiled = _Compiled(expression, _linear(expression))
            self._cpu -= time.thread_time() - started
        self._compiled[expression] = compiled
        return compiled

    def _ask(self, expressions: Sequence[str], name: str) -> None:
        """Have the slow matcher answer all open questions about these patterns at once, expected names included."""
        open_expressions = [
            one
            for one in dict.fromkeys(expressions)
            if self._source_of(one) not in self._unresolved and (one, name) not in self._answers
        ]
        if not open_expressions:
            return
        if self._slow is None:
            for one in open_expressions:
                self._give_up(self._source_of(one), "it needs Python's own engine, which was not allowed here")
            return
        names = [name, *(other for other in self._expected if other != name)]
        questions: list[tuple[str, str]] = []
        for one in open_expressions:
            new = [(one, other) for other in names if (one, other) not in self._answers]
            if len(self._given_to_slow | {one}) > MAX_SLOW or self._asked + len(new) > MAX_QUESTIONS:
                self._give_up(
                    self._source_of(one), "there are too many patterns that only Python's own engine can match"
                )
                continue
            self._given_to_slow.add(one)
            self._asked += len(new)
            questions += new
        for (one, other), answer in zip(questions, self._slow(questions) if questions else (), strict=True):
            if answer is None:
                self._give_up(self._source_of(one), f"{_TOO_MUCH}, or it is no regular expression")
            else:
                self._answers[one, other] = answer

    def _source_of(self, expression: str) -> str:
        return self._source.get(expression, expression)

    def _give_up(self, pattern: str, reason: str) -> None:
        self._unresolved.setdefault(pattern, reason)


def _key_expression(key: str) -> str:
    """What :func:`peft.utils.other.get_pattern_key` compiles."""
    return rf"(.*\.)?({key})$"


def _whole_expression(pattern: str) -> str:
    """An expression whose ``re.match`` is the pattern's ``re.fullmatch``; global flags have to stay in front."""
    flags = _GLOBAL_FLAGS.match(pattern)
    front = flags.group() if flags else ""
    line_end = "\n" if "x" in front else ""  # ends a comment in a verbose pattern
    return rf"{front}(?:{pattern[len(front) :]}{line_end})\Z"


def _is_linear_name(name: str) -> bool:
    """Printable ASCII, where the engines agree about ``.``, ``$``, ``\\w`` and their like."""
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()


def _python_refuses(expression: str) -> str | None:
    try:
        re.compile(expression)
    except (re.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def _linear(expression: str, memory: int = _MEMORY) -> _Linear | None:
    if expression.endswith(r"\Z"):  # RE2 has no \Z; the names it sees have no line breaks, so $ is the same
        expression = expression.removesuffix(r"\Z") + "$"
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True  # only whether it matches matters, which is the faster question
    options.max_mem = memory + 64 * len(expression)
    try:
        compiled: _Linear = re2.compile(expression, options)
    except re2.error:
        return None
    return compiled
