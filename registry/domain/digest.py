"""The identity of bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Self

from registry.errors import InvalidNameError

PREFIX = "sha256:"
_GRAMMAR = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Digest(str):
    """``sha256:`` and 64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _GRAMMAR.fullmatch(text):
            raise InvalidNameError("digest", text, "sha256: and 64 lower-case hexadecimal digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls.of_hex(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_hex(cls, digits: str) -> Self:
        """The 64 digits alone, as git and the Hub write them."""
        return cls(PREFIX + digits)

    @property
    def hex(self) -> str:
        return self[len(PREFIX) :]

    @property
    def short(self) -> str:
        """The first twelve digits: enough for people, and a reference while it is unique."""
        return self[: len(PREFIX) + 12]


class Hasher:
    """The digest of bytes that come in chunks, and how many there were."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        for chunk in chunks:
            self.update(chunk)

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)

    @property
    def digest(self) -> Digest:
        return Digest.of_hex(self._sha256.hexdigest())
