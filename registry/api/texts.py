"""Texts and numbers as requests may have them: bounded, and without characters that steer a terminal."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from registry.domain.names import MAX_NUMBER

_LAYOUT = "\n\t\r"


def _plain(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" and character not in _LAYOUT for character in text):
        raise ValueError("it has control characters")
    return text


Plain = AfterValidator(_plain)
#: Of a metric, a task, a rule: one line.
Label = Annotated[str, StringConstraints(min_length=1, max_length=200), Plain]
#: One that may be empty.
Part = Annotated[str, StringConstraints(max_length=200), Plain]
Why = Annotated[str, StringConstraints(min_length=1, max_length=1000), Plain]
Note = Annotated[str, StringConstraints(max_length=10_000), Plain]
VersionNumber = Annotated[int, Field(ge=1, lt=MAX_NUMBER)]
#: As many as a row can be numbered.
Sequence = Annotated[int, Field(ge=0, lt=1 << 63)]


class RequestBody(BaseModel):
    """A document of a request: nothing in it is overlooked, and nothing taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
