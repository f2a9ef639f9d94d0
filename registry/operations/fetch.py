"""A version becomes a directory, complete and verified, or nothing appears.

1. Resolve the reference and read the manifest.
2. Write every file into a directory beside the wanted one, hashing what is written.
3. Only when all agree with the manifest, it is renamed into place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.disk import new_file
from registry.domain.manifest import FileEntry, FileRole, Manifest
from registry.domain.names import Reference
from registry.domain.version import Version
from registry.operations.contents import contents
from registry.operations.manifests import manifest_of
from registry.operations.placing import placed

Progress = Callable[[int], None]

_DAMAGED = "the store is damaged: run `adapters doctor --deep`, and push the original again"


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
    with placed(into) as complete:
        for entry in manifest.files:  # 2
            if entry.role is FileRole.SERVED or not served_only:
                _write(entry, complete, blobs, progress)
    return version, manifest


def _write(entry: FileEntry, into: Path, blobs: BlobStore, progress: Progress) -> None:
    path = into / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        for chunk in contents(entry, blobs.read(entry.digest), hint=_DAMAGED):
            file.write(chunk)
            progress(len(chunk))
