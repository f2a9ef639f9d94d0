"""Adapters and registries on disk, for tests that make many of them."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

from registry.connect import Registry
from tests.conftest import CONFIG, Tensors, lora_tensors, safetensors_bytes


def write(directory: Path, tensors: Tensors | None = None, /, **config: object) -> Path:
    """An adapter in ``directory``, which is made."""
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    data = safetensors_bytes(lora_tensors() if tensors is None else tensors)
    (directory / "adapter_model.safetensors").write_bytes(data)
    return directory


def tree(root: Path) -> dict[str, str]:
    """Everything below ``root``: kind, mode, time of change and content. Empty if there is nothing."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
        found[path.relative_to(root).as_posix()] = f"{status.st_mode:o} {status.st_mtime_ns if regular else ''} {content}"
    return found


def blob_path(registry: Registry, root: Path, reference: str, name: str | None = None) -> Path:
    """Where a version's file lies in the store, or its manifest."""
    details = registry.show(reference)
    digest = details.version.digest
    if name is not None:
        digest = next(entry.digest for entry in details.manifest.files if entry.path == name)
    return root / "blobs" / "sha256" / digest.hex[:2] / digest.hex
