"""A directory that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.operations.fetch import _cannot_write, _place_beside, _refuse_occupied


@contextmanager
def placed(into: Path) -> Iterator[Path]:
    """A working directory beside ``into``, whose sub-directory ``complete`` is renamed to ``into`` when the block ends.

    ``into`` must not exist, or be an empty directory. If anything is raised, nothing is left; what a killed process
    leaves goes with the next one to the same place. Raises OutputExistsError, and UnavailableError where the disk fails.
    """
    into = Path(os.path.abspath(into))
    work, lock = _place_beside(into)
    try:
        yield work
        _sync(work / "complete")
        _refuse_occupied(into)
        os.rename(work / "complete", into)
        _sync(into.parent)
    except OSError as error:
        with suppress(OSError):
            _refuse_occupied(into)
        raise _cannot_write(into, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            os.close(lock)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
