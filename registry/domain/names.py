"""What things are called, and what a person types to mean one version.

Namespace, adapter and alias share one grammar: ASCII letters, digits, ``.``, ``_`` and ``-``; a letter or digit at
both ends; at most 96 characters; no ``--`` and no ``..``. Names that differ only in case are the same name: ``key`` is
what is compared, the text is what is shown. No path is ever made of a name.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Self

from registry.domain.digest import PREFIX, Digest
from registry.errors import InvalidNameError

MAX_LENGTH = 96
MAX_NUMBER = 10**9
DEFAULT_NAMESPACE = "local"

#: First segments of addresses that a server answers itself: the registry's own, and those of the Hub's protocol.
RESERVED = frozenset(
    [
        "api",
        "datasets",
        "docs",
        "healthz",
        "kernels",
        "metrics",
        "models",
        "readyz",
        "spaces",
        "static",
        "v1",
        "v2",
        "xet",
    ]
)

#: What the Hub's protocol calls the newest version, in whatever spelling.
MAIN = "main"

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_LIKE_VERSION = re.compile(r"v[0-9]+", re.ASCII | re.IGNORECASE)
_LIKE_DIGEST = re.compile(r"[0-9a-f]{7,}", re.ASCII | re.IGNORECASE)
_DIGEST_START = re.compile(r"sha256:[0-9a-f]{12,64}", re.ASCII)
_WORD_RULE = (
    "ASCII letters, digits, '.', '_' and '-', a letter or digit at both ends, at most 96 characters, no '--', no '..'"
)


class Word(str):
    """A name in the grammar above. Equality is by spelling; compare ``key`` to compare as the registry does."""

    __slots__ = ()
    kind = "name"

    def __new__(cls, text: str) -> Self:
        if not _WORD.fullmatch(text) or "--" in text or ".." in text:
            raise InvalidNameError(cls.kind, text, _WORD_RULE, hint=_proposal(cls.kind, text))
        return super().__new__(cls, text)

    @property
    def key(self) -> str:
        return self.lower()


class Namespace(Word):
    __slots__ = ()
    kind = "namespace"


class AliasName(Word):
    """A movable pointer's name. It must not be readable as a version or as a digest."""

    __slots__ = ()
    kind = "alias"

    def __new__(cls, text: str) -> Self:
        word = super().__new__(cls, text)
        if "." in text or _LIKE_VERSION.fullmatch(text) or _LIKE_DIGEST.fullmatch(text):
            raise InvalidNameError(
                cls.kind,
                text,
                "a name without a dot that reads neither as a version (v2) nor as a digest (seven or more hex digits)",
            )
        return word


@dataclass(frozen=True, slots=True)
class AdapterName:
    """``namespace/name``: a line of work that has versions."""

    namespace: Namespace
    name: Word

    @classmethod
    def parse(cls, text: str, *, namespace: str = DEFAULT_NAMESPACE) -> Self:
        """``name`` lands in the given namespace, ``ns/name`` says its own. Raises :class:`InvalidNameError`."""
        head, slash, tail = text.partition("/")
        if not slash:
            head, tail = namespace, text
        return cls(Namespace(head), Word(tail))

    @property
    def key(self) -> str:
        return f"{self.namespace.key}/{self.name.key}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a person types for one version: an adapter (its newest version that is not yanked), an adapter with a number or
    an alias, or a digest (or its beginning)."""

    adapter: AdapterName | None = None
    number: int | None = None
    alias: AliasName | None = None
    digest_start: str | None = None

    @classmethod
    def parse(cls, text: str, *, namespace: str = DEFAULT_NAMESPACE) -> Self:
        """``[ns/]name``, ``…@3`` (or ``@v3``), ``…:alias`` or ``sha256:…``. Raises :class:`InvalidNameError`."""
        if text.startswith(PREFIX):
            if not _DIGEST_START.fullmatch(text):
                raise InvalidNameError("digest", text, "sha256: and 12 to 64 lower-case hexadecimal digits")
            return cls(digest_start=text)
        if text.startswith((".", "/", "~")) or "://" in text:
            raise InvalidNameError(
                "reference",
                text,
                "[ns/]name, name@3, name:alias or sha256:…",
                hint="a directory is stored first: adapters push DIR",
            )
        rest, at, number = text.partition("@")
        if at:
            return cls(AdapterName.parse(rest, namespace=namespace), number=version_number(number.removeprefix("v")))
        rest, colon, alias = text.partition(":")
        return cls(AdapterName.parse(rest, namespace=namespace), alias=AliasName(alias) if colon else None)

    @property
    def digest(self) -> Digest | None:
        whole = self.digest_start is not None and len(self.digest_start) == len(PREFIX) + 64
        return Digest(self.digest_start) if whole and self.digest_start else None

    def __str__(self) -> str:
        if self.adapter is None:
            return self.digest_start or ""
        if self.number is not None:
            return f"{self.adapter}@{self.number}"
        return f"{self.adapter}:{self.alias}" if self.alias else str(self.adapter)


def require_free(namespace: Namespace) -> None:
    """Raises :class:`InvalidNameError` for a namespace in which nothing can be served, so that nothing is made there."""
    if namespace.key in RESERVED:
        raise InvalidNameError(
            "namespace",
            namespace,
            "another: this one is the beginning of addresses that a server answers itself",
            hint=f"not in {', '.join(sorted(RESERVED))}",
        )


def require_no_main(alias: AliasName) -> None:
    """Raises :class:`InvalidNameError` for an alias that clients of the Hub would take for the newest version. One that was made
    before this was refused is read, moved and removed as any other."""
    if alias.key == MAIN:
        raise InvalidNameError(
            "alias",
            alias,
            "another name: main is the newest version, to the clients of the Hub",
            hint="choose another, such as 'production'",
        )


def version_number(text: str) -> int:
    """``3`` → 3; a leading ``v`` or ``@`` is not part of a number. Raises :class:`InvalidNameError`."""
    if not _NUMBER.fullmatch(text):
        raise InvalidNameError("version", text, "a whole number from 1, as in name@3")
    return int(text)


def fitted(text: str) -> str:
    """``text`` made to fit the grammar: lower case, ASCII, runs of anything else a dash. Empty if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    dashed = re.sub(r"[^a-z0-9._-]+", "-", ascii_text)
    single = re.sub(r"\.{2,}", ".", re.sub(r"-{2,}", "-", dashed))
    return single[:MAX_LENGTH].strip("._-")


def _proposal(kind: str, text: str) -> str:
    proposal = fitted(text)
    return f"{proposal!r} would do" if proposal else f"choose {kind} letters and digits, such as 'my-adapter'"
