"""Texts and numbers as requests may have them. The bounds of texts are the dictionary's, whose own error passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import core_schema

from registry.domain import texts
from registry.domain.names import MAX_NUMBER

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue


@dataclass(frozen=True)
class Worded:
    """A text of this kind. OpenAPI shows its bounds."""

    wording: texts.Wording

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.wording.checked, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        least = {"minLength": self.wording.least} if self.wording.least else {}
        return {**handler(schema), "maxLength": self.wording.most, **least}


Metric = Annotated[str, Worded(texts.METRIC)]
Task = Annotated[str, Worded(texts.TASK)]
Suite = Annotated[str, Worded(texts.SUITE)]
Split = Annotated[str, Worded(texts.SPLIT)]
Filter = Annotated[str, Worded(texts.FILTER)]
Source = Annotated[str, Worded(texts.SOURCE)]
Why = Annotated[str, Worded(texts.REASON)]
Note = Annotated[str, Worded(texts.NOTE)]
BaseName = Annotated[str, Worded(texts.BASE_NAME)]
Revision = Annotated[str, Worded(texts.REVISION)]
Rule = Annotated[str, Worded(texts.RULE)]
Prose = Annotated[str, Worded(texts.PROSE)]
Condition = Annotated[str, Worded(texts.CONDITION)]
VersionNumber = Annotated[int, Field(ge=1, lt=MAX_NUMBER)]
#: As many as a row can be numbered.
Sequence = Annotated[int, Field(ge=0, lt=1 << 63)]


class RequestBody(BaseModel):
    """A document of a request: nothing in it is overlooked, and nothing taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
