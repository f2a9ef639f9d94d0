"""What a registry holds, and whether it is the same as something else."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from pathlib import Path

from registry.connect import Registry, connect
from registry.domain.version import Version


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a registry holds, to see that nothing was written."""

    blobs: frozenset[str]
    staged: frozenset[str]
    versions: tuple[str, ...]
    audit: int


def holdings(root: Path) -> Holdings:
    store = open_registry(root)
    return Holdings(
        frozenset(store.blobs.digests()),
        frozenset(path.name for path in files_below(root / "staging")),
        tuple(visible(store)),
        len(store.log()),
    )


def open_registry(root: Path) -> Registry:
    return connect(root, actor="judge")


def visible(store: Registry) -> dict[str, Version]:
    return {version.reference: version for version in store.catalog.live_versions()}


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and not any(
        filecmp.cmpfiles(one, other, names, shallow=False)[1:]
    )


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []
