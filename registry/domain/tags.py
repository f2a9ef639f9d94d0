"""Labels on a version: ``customer=acme``. Keys are ASCII and short, values one line of text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from registry.errors import InvalidInputError, InvalidNameError

_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,94}[A-Za-z0-9])?", re.ASCII)
_MAX_VALUE = 1024
#: So many are set, or removed, at once.
MOST_TAGS = 100


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The same tags, or InvalidNameError for the first that is outside the grammar, InvalidInputError for too many at once."""
    checked_keys(tags)
    for key, value in tags.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InvalidNameError(
                "tag", key, "a key of ASCII letters, digits, '.', '_', '/' and '-', at most 96 characters"
            )
        if not isinstance(value, str) or not value or len(value) > _MAX_VALUE or not value.isprintable():
            raise InvalidNameError("tag value", value, f"one line of printable text, 1 to {_MAX_VALUE} characters")
    return dict(tags)


def checked_keys(keys: Collection[str]) -> Collection[str]:
    """The same, or InvalidInputError for too many at once. A key outside the grammar is one that no version has."""
    if len(keys) > MOST_TAGS:
        raise InvalidInputError(
            f"these are {len(keys)} tags, expected at most {MOST_TAGS} at once", code="too-many-tags"
        )
    return keys


def parse_tag(text: str) -> tuple[str, str]:
    """``customer=acme`` → (customer, acme)."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidNameError("tag", text, "KEY=VALUE, such as customer=acme")
    return next(iter(checked_tags({key: value}).items()))
