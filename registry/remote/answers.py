"""What a server answers, read within bounds: a stranger may send what it likes, for as long as it likes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import urllib3

from registry.errors import (
    AliasMovedError,
    ChangedMeanwhileError,
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    RegistryError,
    RejectedError,
    UnavailableError,
)
from registry.formats.json_text import parse_json
from registry.remote.values import read_finding, shaped

T = TypeVar("T")

#: Bytes of a document that are read, and seconds from its first byte to its last.
MOST_BYTES = 64 << 20
PATIENCE = 60.0
_PIECE = 1 << 16
_FAMILIES: dict[int, type[RegistryError]] = {
    family.exit_code: family
    for family in (
        InvalidInputError,
        NotFoundError,
        ConflictError,
        RejectedError,
        CorruptionError,
        UnavailableError,
        DeniedError,
    )
}


class UnreadableError(Exception):
    """An answer that no registry gives; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def whole(response: urllib3.BaseHTTPResponse) -> Answer:
    """Raises what urllib3 does where the connection breaks, and UnreadableError for what does not come to an end."""
    deadline = time.monotonic() + PATIENCE
    body = bytearray()
    try:
        while piece := response.read1(_PIECE):
            body += piece
            if len(body) > MOST_BYTES:
                raise UnreadableError(f"with more than {MOST_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise UnreadableError(f"so slowly that {len(body):,} bytes took more than {PATIENCE:.0f} s")
    except UnreadableError:
        response.close()
        raise
    response.release_conn()
    return Answer(response.status, response.headers, bytes(body))


def read_document(body: bytes, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of the JSON in ``body``, None where there is nothing. Raises UnreadableError for all that it cannot
    read, and whatever other errors ``read`` raises on purpose."""
    try:
        found = parse_json(body, where="the answer", max_bytes=MOST_BYTES, forbid_constants=True) if body else None
        return read(found)
    except KeyError as error:
        raise UnreadableError(f"without {error}") from error
    except (InvalidInputError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UnreadableError(f"with what cannot be read ({error!s:.200})") from error


def read_error(document: Mapping[str, Any]) -> RegistryError:
    """A problem document as the error it was."""
    code, detail = shaped(document["code"], str), shaped(document["detail"], str)
    hint = shaped(document.get("hint"), str | None)
    if code == AliasMovedError.default_code:
        expected, actual = (shaped(document.get(key), int | None) for key in ("expected", "actual"))
        moved = AliasMovedError("", expected=expected, actual=actual)
        moved.message, moved.args, moved.hint = detail, (detail,), hint
        return moved
    if code == ChangedMeanwhileError.default_code:
        return ChangedMeanwhileError()
    error = _FAMILIES[document["exit_code"]](detail, code=code, hint=hint)
    if findings := document.get("findings"):
        error.findings = tuple(map(read_finding, findings))
    return error
