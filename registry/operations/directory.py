"""A directory somebody hands in, looked at without following links and without opening what may hang."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from registry.disk import in_chunks
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import FileRole
from registry.errors import UnavailableError, UnsuitableDirectoryError
from registry.formats.adapter_config import MAX_BYTES, parse_adapter_config
from registry.formats.adapter_directory import (
    CONFIG,
    EVALUATIONS_FOLDER,
    MAX_SERVED_FILE,
    MAX_SIDECAR_FILE,
    PICKLED_WEIGHTS,
    WEIGHTS,
    Disposition,
    disposition,
    ignored_folder,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CONVERT = (
    "convert it on a machine that trusts it: load it with PEFT and save_pretrained(..., safe_serialization=True), "
    "which writes adapter_model.safetensors"
)


@dataclass(frozen=True, slots=True)
class Kept:
    path: Path
    size: int
    role: FileRole


def look_at(directory: Path, adapter: str | None = None) -> tuple[dict[str, Kept], list[Finding]]:
    """Files to keep by their path below the directory, and what was left out. Raises UnsuitableDirectoryError for what
    cannot be an adapter."""
    if adapter is not None and (Path(adapter).name != adapter or adapter in ("", ".", "..")):
        raise UnsuitableDirectoryError(f"--adapter {adapter!r} is not the name of a sub-directory", code="no-directory")
    place = directory / adapter if adapter else directory
    if adapter and place.is_symlink():
        raise _not_a_file(place, stat.S_IFLNK)
    kept: dict[str, Kept] = {}
    findings: list[Finding] = []
    folders: list[str] = []
    pickles: list[str] = []
    for entry in _entries(place):
        name = entry.name
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            folders.append(name)
            if name == EVALUATIONS_FOLDER:
                kept.update(_evaluation_files(place / name))
            elif not ignored_folder(name):
                findings.append(_left_out(name, "is a folder", Severity.INFO))
            continue
        what = disposition(name)
        if not stat.S_ISREG(status.st_mode):
            if what is Disposition.IGNORED and stat.S_ISLNK(status.st_mode):
                continue
            raise _not_a_file(place / name, status.st_mode)
        if what is Disposition.PICKLE:
            pickles.append(name)
        elif what is Disposition.CODE:
            findings.append(
                Finding(
                    "code-file",
                    Severity.ERROR,
                    f"{name} is code, and code is never stored with weights",
                    name,
                    "move it elsewhere, or `--allow code-file` to push without it",
                )
            )
        elif what in (Disposition.SERVED, Disposition.SIDECAR):
            served = what is Disposition.SERVED
            if name != WEIGHTS and status.st_size > (MAX_SERVED_FILE if served else MAX_SIDECAR_FILE):
                findings.append(_left_out(name, f"has {status.st_size:,} bytes", Severity.WARNING))
            else:
                role = FileRole.SERVED if served else FileRole.SIDECAR
                kept[name] = Kept(place / name, status.st_size, role)
        elif what is Disposition.UNKNOWN:
            findings.append(_left_out(name, "is no file that an adapter has", Severity.INFO))
    _require_adapter(place, kept, folders, pickles)
    findings += [
        _left_out(name, "is a pickle, which can run code; it was not opened", Severity.WARNING) for name in pickles
    ]
    return kept, findings


def open_regular(path: Path) -> FileIO:
    """Open for reading, never through a link and never waiting for a writer; whatever is no regular file is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _refuse_machine_trouble(error, path)
        raise UnsuitableDirectoryError(
            f"cannot read {path}: {error.strerror}",
            code="unreadable-file",
            hint="check that it is there and yours to read",
        ) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_a_file(path, mode)
    return _Input(path, descriptor)  # the caller closes it


def read_regular(path: Path, progress: Callable[[int], None] = lambda _count: None) -> Iterator[bytes]:
    """What :func:`open_regular` opens, in chunks; ``progress`` hears of each that was taken."""
    with open_regular(path) as file:
        for chunk in in_chunks(file):
            yield chunk
            progress(len(chunk))


class _Input(FileIO):
    """Trouble with the disk is not a bug of whoever reads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(descriptor, "rb")
        self._path = path

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            _refuse_machine_trouble(error, self._path)
            raise

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            _refuse_machine_trouble(error, self._path)
            raise


def _refuse_machine_trouble(error: OSError, path: Path) -> None:
    """Raises UnavailableError if the disk or the process's limits are at fault, and not what was handed in."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM):
        raise UnavailableError(
            f"cannot read {path}: {error.strerror}", hint="look at the disk and at `ulimit -a`"
        ) from error


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        if place.is_file():
            raise UnsuitableDirectoryError(
                f"{place} is a file, expected the directory that holds it",
                code="no-directory",
                hint=f"try {place.parent}",
            )
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        _refuse_machine_trouble(error, place)
        raise UnsuitableDirectoryError(
            f"cannot read the directory {place}: {error.strerror}",
            code="no-directory",
            hint="give the directory that PEFT's save_pretrained wrote",
        ) from error


def _evaluation_files(folder: Path) -> dict[str, Kept]:
    found = {}
    for entry in _entries(folder):
        status = entry.stat(follow_symlinks=False)
        if entry.name.endswith((".yaml", ".yml")) and entry.name.isascii():
            if not stat.S_ISREG(status.st_mode):
                raise _not_a_file(folder / entry.name, status.st_mode)
            if status.st_size <= MAX_SIDECAR_FILE:
                found[f"{folder.name}/{entry.name}"] = Kept(folder / entry.name, status.st_size, FileRole.SERVED)
    return found


def _require_adapter(place: Path, kept: dict[str, Kept], folders: list[str], pickles: list[str]) -> None:
    if CONFIG not in kept:
        inside = [name for name in folders if (place / name / CONFIG).is_file()]
        if inside:
            raise UnsuitableDirectoryError(
                f"{place} has no {CONFIG}, but {', '.join(inside[:5])} {'has' if len(inside) == 1 else 'have'} one",
                code="no-config",
                hint=f"name the one you mean: --adapter {inside[0]}",
            )
        raise UnsuitableDirectoryError(
            f"{place} has no {CONFIG}, so it is not a PEFT adapter",
            code="no-config",
            hint="give the directory that PEFT's save_pretrained wrote",
        )
    if WEIGHTS not in kept:
        with open_regular(
            kept[CONFIG].path
        ) as file:  # another library's adapter is named as such, not for what it lacks
            parse_adapter_config(file.read(MAX_BYTES + 1), where=str(kept[CONFIG].path))
        pickled = next((name for name in PICKLED_WEIGHTS if name in pickles), None)
        if pickled:
            raise UnsuitableDirectoryError(
                f"{place / pickled} is a pickle, which can run code when it is opened", code="pickle", hint=_CONVERT
            )
        raise UnsuitableDirectoryError(
            f"{place} has {CONFIG} but no {WEIGHTS}",
            code="no-weights",
            hint="was the training interrupted? the weights are written last",
        )


def _not_a_file(path: Path, mode: int) -> UnsuitableDirectoryError:
    if stat.S_ISLNK(mode):
        return UnsuitableDirectoryError(
            f"{path} is a symbolic link, and links are not followed",
            code="symlink",
            hint=f"copy the directory with its contents first: cp -rL {path.parent} COPY",
        )
    return UnsuitableDirectoryError(
        f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}, expected a regular file",
        code="not-a-file",
        hint="remove it from the directory",
    )


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFDIR: "a directory",
}


def _left_out(name: str, why: str, severity: Severity) -> Finding:
    return Finding("left-out", severity, f"{name} {why}; it is left out", name, None)
