"""The registry's names as parameters of a path: their grammar is theirs, OpenAPI shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path
from pydantic_core import core_schema

from registry.domain import digest, names

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

_WORD = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$"


@dataclass(frozen=True)
class _Text:
    """A text that the annotated type is made of. Its own error passes, so that the answer has its own code."""

    pattern: str
    length: int = names.MAX_LENGTH

    def __get_pydantic_core_schema__(self, source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.str_schema(pattern=self.pattern, max_length=self.length)
        return core_schema.no_info_after_validator_function(source, text)


Namespace = Annotated[names.Namespace, _Text(_WORD)]
Name = Annotated[names.Word, _Text(_WORD)]
Alias = Annotated[names.AliasName, _Text(r"^[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?$")]
Number = Annotated[int, Path(ge=1, lt=names.MAX_NUMBER)]
Digest = Annotated[digest.Digest, _Text(r"^sha256:[0-9a-f]{64}$", 71)]
