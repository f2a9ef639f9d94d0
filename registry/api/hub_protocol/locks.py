"""One at a time, whichever worker it is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.disk import make_directory, unavailable
from registry.errors import UnavailableError

_PATIENCE = 120.0


@contextmanager
def alone(place: Path, key: str, *, what: str) -> Iterator[None]:
    """Nobody else is with this key in this place, and no file is left there. Raises UnavailableError if others do not finish."""
    path = place / hashlib.sha256(key.encode()).hexdigest()
    deadline = time.monotonic() + _PATIENCE
    while (descriptor := _locked(place, path, what)) is None:
        if time.monotonic() > deadline:
            raise UnavailableError(f"others are committing to {what}", hint="try again")
        time.sleep(0.01)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: whoever waits for this file finds that it is another by now
        os.close(descriptor)


def _locked(place: Path, path: Path, what: str) -> int | None:
    """None while somebody else has it."""
    try:
        make_directory(place)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable(error, f"lock {what}", path) from error
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    os.close(descriptor)
    return None
