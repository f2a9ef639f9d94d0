"""Pattern keys that need no regular expression engine: names, with dots that are wildcards or escaped.

Almost all keys in the wild are of this kind: ``q_proj``, or the full module paths that EVA and mergekit write, dots
unescaped, one per module. A large mixture-of-experts adapter has 18,000 of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_PLAIN = re.compile(r"(?:[A-Za-z0-9_.]|\\\.)+", re.ASCII)


def is_plain(key: str) -> bool:
    return _PLAIN.fullmatch(key) is not None


class PlainKeys:
    """Which of the keys :func:`peft.utils.other.get_pattern_key` matches with a name, by look-up.

    Law: ``matching(name)`` holds exactly the positions ``i`` with ``re.match(rf"(.*\\.)?({key_i})$", name)``, for plain
    keys and names without line breaks.
    """

    def __init__(self, keys: Iterable[tuple[int, str]]) -> None:
        # Keys of one length with their wildcards in the same places differ only in the other characters, so one
        # look-up of the name's end, wildcards blanked out, answers for all of them.
        self._tables: dict[int, dict[tuple[int, ...], dict[str, int]]] = defaultdict(dict)
        for position, key in keys:
            text, wildcards = _parse(key)
            table = self._tables[len(text)].setdefault(wildcards, {})
            table.setdefault(_blank(text, wildcards), position)

    def matching(self, name: str) -> list[int]:
        found: list[int] = []
        start = 0
        while True:
            end = name[start:]
            for wildcards, table in self._tables.get(len(end), {}).items():
                position = table.get(_blank(end, wildcards))
                if position is not None:
                    found.append(position)
            start = name.find(".", start) + 1
            if not start:
                return found


def _parse(key: str) -> tuple[str, tuple[int, ...]]:
    """``a\\.b.c`` → ``a.b.c``, whose character 3 is a wildcard."""
    characters: list[str] = []
    wildcards: list[int] = []
    escaped = False
    for character in key:
        if character == "\\":
            escaped = True
            continue
        if character == "." and not escaped:
            wildcards.append(len(characters))
        characters.append(character)
        escaped = False
    return "".join(characters), tuple(wildcards)


def _blank(text: str, wildcards: tuple[int, ...]) -> str:
    if not wildcards:
        return text
    characters = list(text)
    for position in wildcards:
        characters[position] = "\0"
    return "".join(characters)
