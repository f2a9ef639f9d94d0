"""``hf://OWNER/NAME[@REVISION]``: a repository of the Hub, as a person types it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from registry.errors import InvalidNameError
from registry.formats.base_model_text import is_repository

SCHEME = "hf://"
_LONGEST_REVISION = 200


@dataclass(frozen=True, slots=True)
class HubAddress:
    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidNameError."""
        name, at, revision = text.removeprefix(SCHEME).partition("@")
        sound = not at or (revision.isascii() and revision.isprintable() and 0 < len(revision) <= _LONGEST_REVISION)
        if not text.startswith(SCHEME) or not is_repository(name) or not sound or " " in revision:
            raise InvalidNameError(
                "Hub repository",
                text,
                "hf://OWNER/NAME or hf://OWNER/NAME@REVISION",
                hint="such as hf://acme/my-lora@v3",
            )
        return cls(name, revision or None)

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]

    def at(self, revision: str) -> Self:
        return type(self)(self.repository, revision)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}{f'@{self.revision}' if self.revision else ''}"
