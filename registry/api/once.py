"""A request with an ``Idempotency-Key`` is carried out once, however often it arrives: the answer is kept and given again.

The records are files, so that all workers share them, and end by the clock. They are locked while the request is carried out: one
that arrives meanwhile waits. A refusal is not kept; nothing was done, and the next attempt may succeed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from registry.blobs.filesystem import unavailable
from registry.errors import ConflictError, InvalidInputError

_LONGEST_KEY = 200
#: Bytes of an answer that is kept.
_LARGEST = 4 << 20


class Once:
    """``place`` is a directory of the server's own; ``lifetime`` in seconds."""

    def __init__(self, place: Path, *, lifetime: float) -> None:
        self._place = place
        self._lifetime = lifetime

    def done(self, actor: str, key: str | None, body: bytes, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``action`` answers, or answered before to the same request. Raises ConflictError for a key that was used for
        another."""
        if key is None:
            return action()
        if not key.isprintable() or not 0 < len(key) <= _LONGEST_KEY:
            raise InvalidInputError("the Idempotency-Key must be 1 to 200 printable characters", code="invalid-key")
        path = self._place / hashlib.sha256(f"{actor}\0{key}".encode()).hexdigest()
        shown = hashlib.sha256(body).hexdigest()
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unavailable(error, "note a request", path) from error
        with open(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known = _read(file.read()) if os.fstat(descriptor).st_mtime > time.time() - self._lifetime else None
            if known is not None:
                if known["body"] != shown:
                    raise ConflictError(
                        "this Idempotency-Key was used for another request",
                        code="idempotency-key-reused",
                        hint="take a new key for a new request",
                    )
                answer: dict[str, Any] = known["answer"]
                return answer
            answer = action()
            file.seek(0)
            file.truncate()
            record = json.dumps({"body": shown, "answer": answer}).encode()
            if len(record) <= _LARGEST:
                file.write(record)
            return answer

    def sweep(self) -> None:
        """Remove the records that have ended."""
        with suppress(FileNotFoundError):
            for path in self._place.iterdir():
                with suppress(OSError):
                    if path.stat().st_mtime <= time.time() - self._lifetime:
                        path.unlink()


def _read(data: bytes) -> dict[str, Any] | None:
    """None for a record that a killed worker did not finish."""
    try:
        found = json.loads(data)
        return found if isinstance(found, dict) and {"body", "answer"} <= set(found) else None
    except ValueError:
        return None
