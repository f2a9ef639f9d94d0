"""Paths of somebody's machine in text that others will read.

A path is only itself where its last name ends: ``/home/me/llama`` is neither in ``/home/me/llama-2`` nor in
``/mnt/home/me/llama``; in ``/home/me/llama/config.json`` it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

#: What goes on with a name; a full stop does if a name goes on behind it.
_GOES_ON = r"(?![\w+@%~-]|\.[\w-])"
_BEGINS = r"(?<![\w.+@%~/\\-])"
_NAME = r"[\w.+@=%~-]+"
#: Two names at least: ``/v1`` and ``/think`` are no paths. What follows a word, a ``<`` or another slash is none either.
_ABSOLUTE = re.compile(
    rf"(?:(?<=file://)|(?<![\w.+@%~/\\<-]))(?:~/{_NAME}(?:/{_NAME})*|(?:/{_NAME}){{2,}})"
    rf"|(?<![\w/\\])[A-Za-z]:[\\/](?![\\/]){_NAME}(?:[\\/]+{_NAME})*",
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?', re.DOTALL)


def without_path(text: str, path: str, instead: str) -> str:
    """``text`` with ``instead`` wherever ``path`` stands. A path without a separator may be any word, and is left."""
    standing = _standing(path)
    return text if standing is None else standing.sub(lambda _found: instead, text)


def without_value(data: bytes, path: str, instead: str) -> bytes:
    """A JSON file with ``instead`` for every value that is ``path``, and else byte for byte as it was. What is no JSON is left."""
    stem = path.strip().rstrip("/\\")
    if _standing(path) is None or not _is_json(data):
        return data

    def replaced(found: re.Match[str]) -> str:
        is_key = found[1] is not None
        same = not is_key and json.loads(found[0]).strip().rstrip("/\\") == stem
        return json.dumps(instead, ensure_ascii=False) if same else found[0]

    return _STRING.sub(replaced, data.decode()).encode()


def local_paths(text: str, known: str | None = None) -> tuple[str, ...]:
    """Each once, in the order they come: absolute ones, those below ``~``, and ``known``, which may be relative."""
    standing = _standing(known) if known is not None else None
    found = [known] if known is not None and standing is not None and standing.search(text) else []
    found += [match[0].rstrip(".") for match in _ABSOLUTE.finditer(text)]
    return tuple(dict.fromkeys(found))


def paths_in_json(data: bytes, known: str | None = None) -> tuple[str, ...]:
    """Likewise, in a file's keys and values. What is no JSON is read as text."""
    texts = _texts(json.loads(data)) if _is_json(data) else [data.decode("utf-8", "replace")]
    return tuple(dict.fromkeys(path for text in texts for path in local_paths(text, known)))


def _standing(path: str) -> re.Pattern[str] | None:
    stem = path.strip().rstrip("/\\")
    if "/" not in stem and "\\" not in stem:
        return None
    return re.compile(_BEGINS + re.escape(stem) + _GOES_ON)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*reversed(one.values()), *reversed(one)]
        elif isinstance(one, list):
            waiting += reversed(one)
