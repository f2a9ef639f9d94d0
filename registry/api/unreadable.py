"""What pydantic finds wrong with a request, in one sentence, without the words of its own types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHOULD = re.compile(r"(?:Input|Value|String|List|Dictionary|Tuple) should (?:be|have|match) ")
_WORDS = {
    "missing": "it is missing",
    "extra_forbidden": "nothing has that name",
    "json_invalid": "it is no JSON",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "dict_type": "expected an object",
}


def sentence(errors: Sequence[Mapping[str, Any]], *, place: str) -> str:
    """The first of pydantic's ``errors()``. ``place`` is what the locations are in: ``grace in the body: expected …``."""
    first = errors[0]
    inside = ".".join(str(part) for part in first["loc"])[:200] if first["type"] != "json_invalid" else ""
    words = _WORDS.get(first["type"]) or _SHOULD.sub("expected ", first["msg"].removeprefix("Value error, "), count=1)
    return f"{inside} in {place}: {words}" if inside else f"{place}: {words}"
