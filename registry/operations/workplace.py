"""A directory that is filled over hours: it appears complete or not at all, and what a killed run finished can be taken up.

Beside the wanted place lies a hidden directory with files in their final form as soon as each is on the disk, and a note of
what is being made. It is no checkpoint, since config and index come last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry.disk import sync, write_new
from registry.errors import ConflictError, UnavailableError
from registry.operations.placing import beside, cannot_write, locked, refuse_occupied

#: Names what is being made, so that nothing else is taken up.
_NOTE = "making"
#: Without it nothing loads: it is the first to go.
_CONFIG = "config.json"
_GO_ON = "see to the disk, then give the same command with --resume: what is finished was kept"


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
        into.parent.mkdir(parents=True, exist_ok=True)
        lock = _taken(place, into)
    except OSError as error:
        raise cannot_write(into, error) from error
    try:
        work = Workplace(place, _begun(place, into, making, resume=resume))
        work.keep = bool(work.finished)
        try:
            yield work
            (place / _NOTE).unlink()
            _appear(place, into)
        except BaseException as error:
            kept = work.keep and isinstance(error, OSError | UnavailableError | KeyboardInterrupt)
            if kept:
                _leave_finished(place, making)
            else:
                shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError):
                raise (cannot_write(into, error, hint=_GO_ON) if kept else cannot_write(into, error)) from error
            raise
    finally:
        with suppress(OSError):
            os.close(lock)


def left_behind(into: Path) -> tuple[Path, int]:
    """Where an interrupted run keeps what it finished, and the bytes that it holds: 0 if there is nothing."""
    place = beside(Path(os.path.abspath(into)), "merge")
    return place, sum(path.stat().st_size for path in place.iterdir()) if place.is_dir() else 0


def _taken(place: Path, into: Path) -> int:
    """A descriptor whose lock says that somebody is at work in ``place``. Between its opening and the lock the one before may
    have removed or renamed it: then another."""
    while True:
        refuse_occupied(into)
        place.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            try:
                lock = locked(place)
            except BlockingIOError:
                raise ConflictError(
                    f"another merge is writing to {into}",
                    code="busy",
                    hint="wait until it has finished, or give another -o",
                ) from None
            if place.is_dir() and os.path.samestat(os.fstat(lock), os.lstat(place)):
                return lock
            os.close(lock)


def _begun(place: Path, into: Path, making: str, *, resume: bool) -> frozenset[str]:
    """The files to keep; everything else goes."""
    try:
        kept = _finished(place, making) if resume else frozenset()
        if not kept:
            (place / _NOTE).unlink(missing_ok=True)
        _clear(place, {*kept, _NOTE})
        if not kept:
            _write_note(place, making)
    except OSError as error:
        if not resume:
            shutil.rmtree(place, ignore_errors=True)
        raise cannot_write(into, error) from error
    return kept


def _finished(place: Path, making: str) -> frozenset[str]:
    note = place / _NOTE
    before = note.read_text(encoding="utf-8") if note.is_file() else None
    if before is not None and before != making:
        raise ConflictError(
            "what was interrupted is another merge: base, adapters or options differ",
            code="other-merge",
            hint="leave --resume away to start anew, or repeat the command that was interrupted",
        )
    return frozenset(path.name for path in place.glob("*.safetensors")) if before else frozenset()


def _leave_finished(place: Path, making: str) -> None:
    """As far as the disk lets us: the finished files and the note, and nothing that loads or takes room in vain."""
    with suppress(OSError):
        _clear(place, {_NOTE, *(path.name for path in place.glob("*.safetensors"))})
        if not (place / _NOTE).exists():
            _write_note(place, making)


def _clear(place: Path, kept: Collection[str]) -> None:
    for path in sorted(place.iterdir(), key=lambda path: path.name != _CONFIG):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_note(place: Path, making: str) -> None:
    """Whole or not at all: a torn one would be taken for that of another merge."""
    draft = place / f"{_NOTE}.tmp"
    write_new(making.encode(), draft)
    os.rename(draft, place / _NOTE)


def _appear(place: Path, into: Path) -> None:
    """Raises OutputExistsError also where somebody was faster by a moment. A name that cannot be made durable is taken back."""
    sync(place)
    refuse_occupied(into)
    try:
        os.rename(place, into)
    except OSError:
        refuse_occupied(into)
        raise
    try:
        sync(into.parent)
    except OSError:
        os.rename(into, place)
        raise
