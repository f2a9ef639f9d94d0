"""A repository's files on this machine: from the Hub's cache, downloaded into it where they are missing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from registry.errors import DigestMismatchError
from registry.formats.git_blob import git_hasher
from registry.hub.patience import ask
from registry.hub.trouble import shown

#: What of a model is needed to merge into it: no other format of its weights, and no code.
CHECKPOINT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken", "README.md", "LICENSE*")
ADAPTER = ("*.json", "adapter_model.safetensors", "*.txt", "*.model", "*.jinja", "README.md")

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The directory of a snapshot. Raises what :func:`registry.hub.patience.ask` does, where the cache has not got it, and
    DigestMismatchError."""
    where = shown(repository, revision)
    found = ask(where, partial(_downloaded, repository, revision, patterns), instead="give a directory")
    if patterns is ADAPTER:  # a base's many gigabytes are another matter; its shards are bounded by their headers
        for file in found.rglob("*"):
            _prove(file, where)
    return found


def _downloaded(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


def _prove(file: Path, where: str) -> None:
    """The client compares lengths alone. Its cache keeps files under their ETags, which for weights is the SHA-256 and for other
    files what git calls them; where the cache is not made of links, nothing tells. Raises DigestMismatchError."""
    expected = file.readlink().name if file.is_symlink() else ""
    if not _DIGEST.fullmatch(expected):
        return
    kind = partial(git_hasher, file.stat().st_size) if len(expected) == 40 else hashlib.sha256
    with open(file, "rb") as data:
        actual = hashlib.file_digest(data, kind).hexdigest()
    if actual != expected:
        raise DigestMismatchError(
            f"{where}/{file.name} in the Hub's cache",
            expected=expected,
            actual=actual,
            hint=f"remove {file.resolve()} and fetch it again",
        )
