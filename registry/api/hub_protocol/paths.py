"""The segments of a request's path, each unquoted by itself.

Clients send a revision such as ``refs/pr/1`` as one segment, its slashes quoted; ``scope["path"]`` is unquoted already and would be
cut in the wrong places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from starlette.types import Scope

#: A proxy that unquotes the path cuts these revisions in three.
_REFS = frozenset(["heads", "tags", "pr", "convert"])


def segments(scope: Scope) -> list[str]:
    """Without empty ones at the ends. A byte that is no UTF-8 becomes U+FFFD, which nothing here is called."""
    parts = [unquote_to_bytes(part).decode("utf-8", "replace") for part in _raw(scope).strip(b"/").split(b"/")]
    return joined_refs(parts)


def path_asked_for(scope: Scope) -> str:
    """As it was quoted, for an address that leads to the same."""
    return quote(_raw(scope), safe="/%~!$&'()*+,;=:@")


def _raw(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0]


def joined_refs(parts: Sequence[str]) -> list[str]:
    """``…/refs/pr/1/…`` is one revision, wherever one may stand: not among the first two, which name a repository."""
    for at in range(2, len(parts) - 2):
        if parts[at] == "refs" and parts[at + 1] in _REFS:
            return [*parts[:at], "/".join(parts[at : at + 3]), *parts[at + 3 :]]
    return list(parts)


def quoted(path: str) -> str:
    """For a ``Location``: slashes stay."""
    return quote(path, safe="/")
