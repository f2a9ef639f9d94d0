"""The file of a catalog in a directory of a registry: whether it is there, may be made there, and how it goes."""

from __future__ import annotations

import os
from pathlib import Path

from registry.errors import InvalidInputError, UnavailableError

#: What else lies in the directory of a catalog.
_BESIDE = frozenset(["journal", "blobs", "staging", "work", "server"])


def is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UnavailableError(
            f"cannot look at {path}: {error.strerror}", hint="check the disk and who owns the registry", path=path
        ) from error


def require_own_place(path: Path) -> None:
    """Raises InvalidInputError where a catalog would be made in a directory of something else, such as an adapter's own."""
    try:
        names = [name for name in os.listdir(path.parent) if not name.startswith(".") and name != "lost+found"]
    except OSError:
        return  # not there yet, or to be refused when it is written to
    if names and not any(name in _BESIDE or name.startswith(path.name) for name in names):
        raise InvalidInputError(
            f"{path.parent} is no registry and is not empty: it holds {min(names)!r:.80}; nothing was made",
            code="occupied",
            hint="name a directory of its own with --registry or ADAPTERS_REGISTRY",
        )


def discard(path: Path, *, only_companions: bool = False) -> None:
    """Remove a database and the files that SQLite keeps beside it."""
    for suffix in ("-journal", "-wal", "-shm", *(() if only_companions else ("",))):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
