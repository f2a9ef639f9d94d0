"""Plain data as YAML that every reader takes alike.

The law: for any of JSON's types with finite numbers, ``parse_yaml(write_yaml(x)) == x``, and PyYAML's 1.1 and the Hub's 1.2
read the same. So a text stands bare only if no schema could take it for anything else; all others are double-quoted on one
line, and no text of a stranger can end a value, add a key or close a front matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

#: Words that YAML 1.1 or 1.2 reads as something other than a text.
_RESERVED = frozenset(["y", "yes", "n", "no", "on", "off", "true", "false", "null", "none", "nan", "inf", "infinity"])
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_/-]*(?:\.[A-Za-z0-9_/-]+)*", re.ASCII)
#: What the YAML specification calls printable, without line breaks other than JSON's: https://yaml.org/spec/1.2.2/#51-character-set
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BIDIRECTIONAL = re.compile(r"[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069]")


def write_yaml(document: Mapping[str, object]) -> str:
    """A block mapping, its keys in their order; empty for an empty one."""
    return "".join(f"{line}\n" for line in _mapping(document))


def _mapping(value: Mapping[str, object]) -> Iterator[str]:
    for key, item in value.items():
        yield from _entry(f"{_text(str(key))}:", item, indent="  ")


def _sequence(value: Sequence[object]) -> Iterator[str]:
    for item in value:
        if isinstance(item, Mapping) and item:
            lines = list(_mapping(item))
            yield f"- {lines[0]}"
            yield from (f"  {line}" for line in lines[1:])
        else:
            yield from _entry("-", item, indent="  ")


def _entry(start: str, item: object, *, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping):
        yield start if item else f"{start} {{}}"
        yield from (f"{indent}{line}" for line in _mapping(item))
    elif isinstance(item, list | tuple):
        yield start if item else f"{start} []"
        yield from (f"{indent}{line}" for line in _sequence(item))
    else:
        yield f"{start} {_scalar(item)}"


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return str(value) if isinstance(value, int) else _text(str(value))


def _float(value: float) -> str:
    """With a point, for YAML 1.1 takes ``1e-05`` for a text."""
    if value != value or abs(value) == float("inf"):
        return ".nan" if value != value else (".inf" if value > 0 else "-.inf")
    mantissa, e, exponent = repr(value).partition("e")
    whole = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{whole}e{exponent if exponent.startswith('-') else '+' + exponent.lstrip('+')}" if e else whole


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _BIDIRECTIONAL.sub(_escaped, _UNPRINTABLE.sub(_escaped, quoted))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
