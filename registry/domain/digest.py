"""The identity of bytes."""

from __future__ import annotations

import hashlib
import re
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
        return cls(PREFIX + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        return self[len(PREFIX) :]

    @property
    def short(self) -> str:
        """The first twelve digits: enough for people, and a reference while it is unique."""
        return self[: len(PREFIX) + 12]
