"""A directory that appears complete or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.disk import NO_SPACE, sync
from registry.errors import OutputExistsError, UnavailableError


@contextmanager
def placed(into: Path) -> Iterator[Path]:
    """A directory to be filled, which is renamed to ``into`` when the block ends.

    ``into`` must not exist, or be an empty directory. If anything is raised, nothing is left; what a killed process
    leaves goes with the next one to the same place. Raises OutputExistsError, and UnavailableError where the disk fails.
    """
    into = Path(os.path.abspath(into))
    with scratch(into) as partial:
        try:
            yield partial
            sync(partial)
            refuse_occupied(into)
            os.rename(partial, into)
            settle(into)
        except OSError as error:
            with suppress(OSError):
                refuse_occupied(into)
            raise cannot_write(into, error) from error


@contextmanager
def scratch(into: Path) -> Iterator[Path]:
    """A directory beside ``into`` for what is needed meanwhile."""
    place, lock = _place_beside(Path(os.path.abspath(into)))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            os.close(lock)


def _place_beside(into: Path) -> tuple[Path, int]:
    """A directory beside the wanted one, locked. Whoever swept it away before the lock took it for a leftover: then
    another."""
    try:
        refuse_occupied(into)
        into.parent.mkdir(parents=True, exist_ok=True)
        _sweep(into)
        while True:
            partial = beside(into, secrets.token_hex(4))
            partial.mkdir()
            with suppress(BlockingIOError, FileNotFoundError):
                lock = locked(partial)
                if partial.is_dir():
                    return partial, lock
                os.close(lock)
    except OSError as error:
        raise cannot_write(into, error) from error


def cannot_write(
    into: Path, error: OSError, *, hint: str = "check the disk and the directory; nothing was left behind"
) -> UnavailableError:
    return UnavailableError(
        f"cannot write to {into}: {error.strerror or error}",
        code="no-space" if error.errno in NO_SPACE else None,
        hint=hint,
    )


def beside(into: Path, what: str) -> Path:
    """The hidden directory in which what will be ``into`` is made."""
    return into.parent / f"{_prefix(into)}{what}"


def _prefix(into: Path) -> str:
    return f".{into.name}.partial-"


def locked(directory: Path) -> int:
    """A descriptor whose lock says that somebody alive is at work here."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(into: Path) -> None:
    """Remove what killed pulls to the same place left; what a living one is writing is locked, and left alone."""
    for leftover in into.parent.iterdir():
        if leftover.name.startswith(_prefix(into)):
            with suppress(OSError):
                lock = locked(leftover)
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(lock)


def refuse_occupied(into: Path) -> None:
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise OutputExistsError(f"{into} is there already and no directory", hint="give another -o")
    if into.is_dir() and any(into.iterdir()):
        raise OutputExistsError(f"{into} is not empty", hint="give a directory that is empty or does not exist")


def settle(into: Path) -> None:
    """Make its name durable; what cannot be is not left there either."""
    try:
        sync(into.parent)
    except OSError:
        shutil.rmtree(into, ignore_errors=True)
        raise
