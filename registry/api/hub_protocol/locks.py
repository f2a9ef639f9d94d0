"""One at a time, whichever worker it is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.disk import make_directory, unavailable
from registry.errors import UnavailableError

_PATIENCE = 120.0


@contextmanager
def alone(place: Path, key: str, *, what: str) -> Iterator[None]:
    """Nobody else is with this key in this place. Raises UnavailableError if others do not finish."""
    path = place / hashlib.sha256(key.encode()).hexdigest()
    try:
        make_directory(place)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable(error, "lock an adapter", path) from error
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"others are committing to {what}", hint="try again") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
