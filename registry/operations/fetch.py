"""A version becomes a directory, complete and verified, or nothing appears.

1. Resolve the reference and read the manifest.
2. Write every file into a directory beside the wanted one, hashing what is written.
3. Only when all agree with the manifest, rename it into place.
"""

from __future__ import annotations

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
    _refuse_occupied(into)
    _sweep(into)
    partial = into.parent / f"{_prefix(into)}{secrets.token_hex(4)}"
    lock = -1
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        lock = _locked(partial)
        for entry in manifest.files:  # 2
            if entry.role is FileRole.SERVED or not served_only:
                _write(entry, partial, blobs, progress)
        _refuse_occupied(into)
        os.rename(partial, into)  # 3
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        _refuse_occupied(into)
        raise UnavailableError(
            f"cannot write to {into}: {error.strerror or error}",
            hint="check the disk and the directory; nothing was left behind",
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if lock >= 0:
            os.close(lock)
    return version, manifest


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
    for leftover in into.parent.glob(f"{_prefix(into)}*"):
        with suppress(OSError):
            os.close(_locked(leftover))
            shutil.rmtree(leftover, ignore_errors=True)


def _refuse_occupied(into: Path) -> None:
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise OutputExistsError(f"{into} is there already and no directory", hint="give another -o")
    if into.is_dir() and any(into.iterdir()):
        raise OutputExistsError(f"{into} is not empty", hint="give a directory that is empty or does not exist")
