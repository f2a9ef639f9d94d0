"""Who may do what: tokens, the actions they allow, and the namespaces they allow them in.

A token is opaque, random and shown once; what is kept is the SHA-256 of its secret (256 random bits need no slow hash), as
crates.io does. Its text has a prefix that scanners know and a checksum, so that a typing error or a leaked token can be told
without asking anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Self

from registry.domain.names import MAX_LENGTH, AdapterName, Namespace, Word
from registry.errors import InvalidInputError, InvalidNameError

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TEXT = re.compile(r"(adr_(?P<id>[a-z0-9]{10})_(?P<secret>[A-Za-z0-9_-]{43}))_(?P<check>[0-9A-Za-z]{6})", re.ASCII)
_ID_LETTERS = string.ascii_lowercase + string.digits
#: In the scope of a token.
MOST_PATTERNS = 100
_NO_HASH = hashlib.sha256(b"no such token").hexdigest()


class Action(StrEnum):
    """What a route does. None of them implies another; ``ADMIN`` alone is every one, in every namespace.

    To hide an adapter takes ``PUSH``; to show what is hidden takes ``DELETE``, as to take it away does. Whoever changes what
    they may not read is told that it was done and nothing else; a gate tells scores, so to promote takes ``READ`` as well.
    """

    READ = "read"
    PUSH = "push"  #: versions, scores and cards
    TAG = "tag"  #: aliases and tags
    YANK = "yank"
    DELETE = "delete"  #: versions and adapters
    ADMIN = "admin"  #: tokens, bases, audit


class TokenName(str):
    """Whose a token is: how the audit names them."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not text.strip() or not text.isprintable() or len(text) > MAX_LENGTH:
            raise InvalidNameError("token name", text, f"one line of printable text, 1 to {MAX_LENGTH} characters")
        return super().__new__(cls, text)


class NamespacePattern(str):
    """``*``, ``team/*``, ``team/support-*`` or ``team/support-de``: names are compared without case."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        namespace, slash, name = text.partition("/")
        if text != "*":
            try:
                Namespace(namespace)
                if not slash or not name or name.count("*") > 1 or not (name.endswith("*") or "*" not in name):
                    raise InvalidNameError("name", name, "")
                if stem := name.removesuffix("*").rstrip("._-"):
                    Word(stem)
            except InvalidNameError:
                raise InvalidNameError(
                    "namespace pattern", text, "*, team/*, team/part-of-a-name* or team/name"
                ) from None
        return super().__new__(cls, text)

    def covers(self, adapter: AdapterName) -> bool:
        return self == "*" or fnmatchcase(adapter.key, self.lower())


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. Times are ISO 8601 in UTC; ``expires_at`` None means never."""

    id: str
    name: str
    hash: str
    actions: frozenset[Action]
    patterns: tuple[NamespacePattern, ...]
    created_at: str = ""
    expires_at: str | None = None
    revoked_at: str | None = None

    def is_live(self, now: str) -> bool:
        """``now`` as :func:`registry.domain.moments.utc_now` writes it; what cannot be compared has expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def may(self, action: Action, adapter: AdapterName | None) -> bool:
        """``adapter=None`` is for what belongs to no adapter: only a pattern ``*`` covers it, except for reading."""
        if Action.ADMIN in self.actions:
            return True
        if action not in self.actions:
            return False
        if adapter is None:
            return action is Action.READ or "*" in self.patterns
        return any(pattern.covers(adapter) for pattern in self.patterns)

    def document(self) -> dict[str, object]:
        """Without the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "actions": sorted(self.actions),
            "namespaces": list(self.patterns),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
        }


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as somebody shows it. Its ``repr`` does not give it away."""

    id: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no token of ours, by form or by checksum."""
        match = _TEXT.fullmatch(text)
        if match is None or _checksum(match[1]) != match["check"]:
            return None
        return cls(match["id"], match["secret"])

    def is_of(self, token: Token | None) -> bool:
        """In the same time for an id that nobody has."""
        shown = hashlib.sha256(self.secret.encode()).hexdigest()
        return hmac.compare_digest(shown, token.hash if token else _NO_HASH) and token is not None

    def __repr__(self) -> str:
        return f"Presented(id={self.id!r})"


def new_token(
    name: str, actions: Iterable[Action], patterns: Iterable[NamespacePattern], *, expires_at: str | None
) -> tuple[str, Token]:
    """The text, to be shown once, and what is kept of it. Raises InvalidNameError, InvalidInputError for too many patterns."""
    scope = tuple(patterns)
    if len(scope) > MOST_PATTERNS:
        raise InvalidInputError(
            f"a scope of {len(scope)} patterns, expected at most {MOST_PATTERNS}", code="too-many-patterns"
        )
    token_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(10))
    secret = secrets.token_urlsafe(32)
    text = f"adr_{token_id}_{secret}"
    kept = Token(
        token_id,
        TokenName(name),
        hashlib.sha256(secret.encode()).hexdigest(),
        frozenset(actions),
        scope,
        expires_at=expires_at,
    )
    return f"{text}_{_checksum(text)}", kept


def _checksum(text: str) -> str:
    """CRC-32 in six digits to the base 62."""
    rest = zlib.crc32(text.encode())
    digits = ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = _DIGITS[digit] + digits
    return digits
