"""Where a page ended: opaque to clients, and no way to learn of what they may not see."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from registry.domain.names import MAX_LENGTH, MAX_NUMBER, Reference
from registry.domain.query import Position, VersionQuery
from registry.errors import InvalidInputError, InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.domain.version import Version


def cursor_behind(query: VersionQuery, last: Version) -> str:
    """Of the next page, where ``last`` is the last row of this one."""
    after = query.behind(last).after
    assert after is not None  # noqa: S101 - for the type checker: behind() says where
    return _written(after)


def _written(position: Position) -> str:
    text = json.dumps([position.reference, *position.keys], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


_LONGEST_NAME = f"{'n' * MAX_LENGTH}/{'n' * MAX_LENGTH}"
#: Characters of the longest: of all that rows are sorted by, names are.
LONGEST = len(_written(Position(f"{_LONGEST_NAME}@{MAX_NUMBER}", (_LONGEST_NAME, MAX_NUMBER))))


def position_at(cursor: str, query: VersionQuery) -> Position:
    """Raises InvalidInputError for what no page of this order can have ended with."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        reference, *keys = json.loads(base64.b64decode(padded.encode(), altchars=b"-_", validate=True))
        position = Position(str(Reference.parse(reference)), tuple(keys))
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError, InvalidNameError):
        raise _no_cursor(cursor) from None
    require_page_end(position, query)
    return position


def require_page_end(position: Position, query: VersionQuery) -> None:
    """Raises InvalidInputError for keys that no row of this order has. Whether there is such a row nobody learns: the page begins
    behind the keys, and no row is looked up."""
    if not _fits(position.keys, query):
        raise _no_cursor(position.reference)


def _no_cursor(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text!r:.80} is where no page of this question ends",
        code="invalid-cursor",
        hint="give `next` of the page before, as it was, to the same question",
    )


def _fits(keys: Sequence[Any], query: VersionQuery) -> bool:
    kinds = _KINDS.get(query.sort or "name", (_is_number, _is_count))
    return len(keys) == len(kinds) and all(fits(key) for fits, key in zip(kinds, keys, strict=True))


def _is_name(key: object) -> bool:
    return isinstance(key, str) and "/" in key


def _is_time(key: object) -> bool:
    return isinstance(key, str) and "/" not in key


def _is_count(key: object) -> bool:
    return isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 1 << 63


def _is_number(key: object) -> bool:
    return isinstance(key, int | float) and not isinstance(key, bool) and abs(key) < float("inf")


#: What rows of an order are sorted by; the value of a metric where there is no such order.
_KINDS: dict[str, tuple[Callable[[object], bool], ...]] = {
    "name": (_is_name, _is_count),
    "created": (_is_time, _is_count),
    "rank": (lambda key: key is None or _is_count(key), _is_count),
    "bytes": (_is_count, _is_count),
    "parameters": (_is_count, _is_count),
}
