"""YAML from strangers: plain data only, and no more of it than was written.

The law: any text gives JSON's types (``None``, bool, int, float, str, list, dict with str keys) or one error of the
family asked for. Anchors and aliases are refused, so a value cannot be larger than its text ("billion laughs"); tags
that ask for objects, bytes, sets or dates are refused too.

Scalars follow the core schema of YAML 1.2, as on the Hub, and not PyYAML's 1.1: ``no`` is a word (Norwegian), ``1e-5``
a number, ``2024-05-01`` a text. Keys are the texts they are written as. The schema:
https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import json
import re

from yaml import MarkedYAMLError, YAMLError
from yaml.composer import Composer
from yaml.events import AliasEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from registry.errors import MalformedFileError
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error

#: Metadata of a few kilobytes; PyYAML needs about ten seconds for a megabyte.
MAX_BYTES = 1 << 16
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
#: As long a run of digits as has a meaning; a longer one is a (rounded) float, and ``int`` never sees it.
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")


class _NotPlainDataError(Exception):
    def __init__(self, problem: str, line: int, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.hint = hint


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML without its constructors: text to nodes, where nothing is larger or deeper than the text shows."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise _NotPlainDataError(
                f"uses the anchor or alias {event.anchor!r:.60}", line, "write the value out in both places"
            )
        if self._depth >= MAX_DEPTH:
            raise _NotPlainDataError(
                f"nests more than {MAX_DEPTH} deep",
                line,
                "check that this is the right file; no known writer nests that deep",
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _name, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)


def parse_yaml(
    data: str | bytes,
    *,
    where: str,
    max_bytes: int = MAX_BYTES,
    first_line: int = 1,
    error: type[MalformedFileError] = MalformedFileError,
) -> object:
    """The one document in ``data`` (UTF-8), None if it is empty, or ``error`` about ``where`` with the line.

    A key repeated in one mapping is tolerated when its values are the same, refused when they differ.
    ``first_line`` is the number of the first line, for text cut from a larger file.
    """
    text = _decoded(data, where, max_bytes, error)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(node)
    except _NotPlainDataError as wrong:
        raise error(where, f"{wrong.problem}, line {wrong.line + first_line - 1}", hint=wrong.hint) from None
    except YAMLError as wrong:
        raise error(where, f"is not YAML: {_sentence(wrong, text, first_line)}", hint="correct that place") from None
    except (ValueError, OverflowError):  # PyYAML hands \U00110000 to chr() as it is, and %YAML 9…9 to int()
        raise error(
            where, "is not YAML: an escape or a version is out of range", hint="write the character itself, as UTF-8"
        ) from None


def _decoded(data: str | bytes, where: str, max_bytes: int, error: type[MalformedFileError]) -> str:
    size = len(data)
    if size > max_bytes:
        raise error(
            where,
            f"holds {size:,} bytes of YAML, more than the {max_bytes:,} that are read",
            hint="check that this is the right file; a real one is a few kilobytes",
        )
    if isinstance(data, str):
        return data
    if is_lfs_pointer(data):
        raise lfs_pointer_error(where, error)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise error(
            where,
            f"is not UTF-8 text: byte 0x{data[wrong.start]:02x} in line {line}",
            hint="save it as UTF-8, or check that this is the right file",
        ) from None


def _value(node: Node) -> object:
    """Recursion is safe: the loader bounded the depth."""
    tag, line = node.tag, node.start_mark.line + 1
    if isinstance(node, SequenceNode) and tag == _TAG + "seq":
        return [_value(item) for item in node.value]
    if isinstance(node, MappingNode) and tag == _TAG + "map":
        return _mapping(node)
    if isinstance(node, ScalarNode):
        return _scalar(tag, node.value, line)
    raise _no_plain_data(tag, line)


def _mapping(node: MappingNode) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            raise _NotPlainDataError("has a key that is not a single word or text", line, "quote the key")
        key, value = _utf8(key_node.value, line), _value(value_node)
        if key in found and json.dumps(found[key], sort_keys=True) != json.dumps(value, sort_keys=True):
            raise _NotPlainDataError(
                f"gives {key!r:.80} twice, with different values", line, "keep the one that is meant"
            )
        found[key] = value
    return found


def _scalar(tag: str, text: str, line: int) -> object:
    match tag.removeprefix(_TAG):
        case "str" | "!":
            return _utf8(text, line)
        case "null" if _NULL.fullmatch(text):
            return None
        case "bool" if _BOOL.fullmatch(text):
            return text.lower() == "true"
        case "int" if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float" if _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise _no_plain_data(tag, line)


def _utf8(text: str, line: int) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotPlainDataError(
            "holds half a character, a lone surrogate", line, "write the character itself"
        ) from None
    return text


def _no_plain_data(tag: str, line: int) -> _NotPlainDataError:
    shown = tag.replace(_TAG, "!!")
    return _NotPlainDataError(
        f"asks for {shown!r:.60}, which is not plain data", line, "remove the tag, or quote the value"
    )


def _sentence(wrong: YAMLError, text: str, first_line: int) -> str:
    if isinstance(wrong, ReaderError):
        line = text.count("\n", 0, wrong.position) + first_line
        return f"the character U+{ord(text[wrong.position]):04X} may not occur, line {line}"
    if isinstance(wrong, MarkedYAMLError):
        problem = ", ".join(part for part in (wrong.context, wrong.problem) if part)
        mark = wrong.problem_mark or wrong.context_mark
        place = f", line {mark.line + first_line} column {mark.column + 1}" if mark else ""
        return f"{problem:.160}{place}"
    return f"{wrong!s:.160}"
