"""A directory that is filled over hours: it appears complete or not at all, and what a killed run finished can be taken up.

Beside the wanted place lies a hidden directory with files in their final form as soon as each is on the disk, and a note of
what is being made. It is no checkpoint, since config and index come last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry.errors import ConflictError, UnavailableError
from registry.operations.placing import beside, cannot_write, refuse_occupied, settle, sync

#: Names what is being made, so that nothing else is taken up.
_NOTE = "making"


@dataclass
class Workplace:
    """``finished`` are the files that an interrupted run left complete. ``keep`` says whether what is there now is worth
    keeping if something goes wrong."""

    directory: Path
    finished: frozenset[str] = frozenset()
    keep: bool = False


@contextmanager
def workplace(into: Path, *, making: str, resume: bool) -> Iterator[Workplace]:
    """``making`` is a digest of everything that the result depends on.

    Raises OutputExistsError, ConflictError where somebody is at work there or ``resume`` finds something else, and
    UnavailableError where the disk fails.
    """
    into = Path(os.path.abspath(into))
    place = beside(into, "merge")
    try:
        refuse_occupied(into)
        into.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True)
        lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_write(into, error) from error
    try:
        _take(lock, into)
        work = Workplace(place, _finished(place, making, resume=resume))
        try:
            yield work
            (place / _NOTE).unlink()
            sync(place)
            refuse_occupied(into)
            os.rename(place, into)
            settle(into)
        except BaseException as error:
            lasting = isinstance(error, OSError | UnavailableError | KeyboardInterrupt)
            if not (work.keep and lasting):
                shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError):
                raise cannot_write(into, error) from error
            raise
    finally:
        with suppress(OSError):
            os.close(lock)


def _take(lock: int, into: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"another merge is writing to {into}", code="busy", hint="wait until it has finished, or give another -o"
        ) from None


def _finished(place: Path, making: str, *, resume: bool) -> frozenset[str]:
    """The files to keep; everything else goes."""
    note = place / _NOTE
    if resume:
        before = note.read_text(encoding="utf-8") if note.is_file() else None
        if before is not None and before != making:
            raise ConflictError(
                "what was interrupted is another merge: base, adapters or options differ",
                code="other-merge",
                hint="leave --resume away to start anew, or repeat the command that was interrupted",
            )
        kept = frozenset(path.name for path in place.glob("*.safetensors")) if before else frozenset()
    else:
        kept = frozenset()
    for path in place.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with open(note, "x", encoding="utf-8") as file:
        file.write(making)
        file.flush()
        os.fsync(file.fileno())
    return kept
