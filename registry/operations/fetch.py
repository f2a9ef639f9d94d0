"""A version becomes a directory, complete and verified, or nothing appears.

1. Resolve the reference and read the manifest.
2. Write every file into a directory beside the wanted one, hashing what is written.
3. Only when all agree with the manifest, rename it into place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.domain.digest import PREFIX
from registry.domain.manifest import FileEntry, FileRole, Manifest
from registry.domain.names import Reference
from registry.domain.version import Version
from registry.errors import DigestMismatchError, OutputExistsError, UnavailableError
from registry.operations.manifests import manifest_of

Progress = Callable[[int], None]


def fetch(
    reference: Reference,
    into: Path,
    *,
    blobs: BlobStore,
    catalog: Catalog,
    served_only: bool = False,
    progress: Progress = lambda _count: None,
) -> tuple[Version, Manifest]:
    """``into`` must not exist, or be an empty directory. ``served_only`` leaves the sidecars away: what an engine's folder
    should hold. Raises OutputExistsError, NotFoundError, CorruptionError, UnavailableError."""
    version = catalog.resolve(reference)  # 1
    manifest = manifest_of(version.digest, blobs)
    into = Path(os.path.abspath(into))
    partial, lock = _place_beside(into)
    try:
        for entry in manifest.files:  # 2
            if entry.role is FileRole.SERVED or not served_only:
                _write(entry, partial, blobs, progress)
        _refuse_occupied(into)
        os.rename(partial, into)  # 3
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            _refuse_occupied(into)
        raise _cannot_write(into, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        with suppress(OSError):
            os.close(lock)
    return version, manifest


def _place_beside(into: Path) -> tuple[Path, int]:
    """A directory beside the wanted one, locked. Whoever swept it away before the lock took it for a leftover: then
    another."""
    try:
        _refuse_occupied(into)
        into.parent.mkdir(parents=True, exist_ok=True)
        _sweep(into)
        while True:
            partial = into.parent / f"{_prefix(into)}{secrets.token_hex(4)}"
            partial.mkdir()
            with suppress(BlockingIOError, FileNotFoundError):
                lock = _locked(partial)
                if partial.is_dir():
                    return partial, lock
                os.close(lock)
    except OSError as error:
        raise _cannot_write(into, error) from error


def _cannot_write(into: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"cannot write to {into}: {error.strerror or error}",
        code="no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None,
        hint="check the disk and the directory; nothing was left behind",
    )


def _write(entry: FileEntry, into: Path, blobs: BlobStore, progress: Progress) -> None:
    path = into / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for chunk in blobs.read(entry.digest):
            hasher.update(chunk)
            size += file.write(chunk)
            progress(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    actual = PREFIX + hasher.hexdigest()
    if actual != entry.digest or size != entry.size:
        raise DigestMismatchError(
            f"the stored {entry.path}",
            expected=entry.digest,
            actual=actual,
            hint="the store is damaged: run `adapters doctor --deep`, and push the original again",
        )


def _prefix(into: Path) -> str:
    return f".{into.name}.partial-"


def _locked(directory: Path) -> int:
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
                lock = _locked(leftover)
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(lock)


def _refuse_occupied(into: Path) -> None:
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise OutputExistsError(f"{into} is there already and no directory", hint="give another -o")
    if into.is_dir() and any(into.iterdir()):
        raise OutputExistsError(f"{into} is not empty", hint="give a directory that is empty or does not exist")
