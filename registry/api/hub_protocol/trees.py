"""The files of a commit, and what the Hub's clients want to know of each."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

from registry.blobs.protocol import BlobStore
from registry.domain.digest import Digest
from registry.domain.manifest import Manifest
from registry.errors import CorruptionError
from registry.formats.git_blob import git_hasher
from registry.operations.manifests import manifest_of

#: What a client is told to keep in large-file storage: these, and everything that is larger.
LARGE_SUFFIXES = (".safetensors", ".gguf", ".bin")
LARGE = 1 << 20
_REMEMBERED = 4096

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Entry:
    """``data`` holds the bytes where they are in no store: those of a config whose base was renamed."""

    path: str
    digest: Digest
    size: int
    data: bytes | None = None

    @property
    def is_large(self) -> bool:
        return is_large(self.path, self.size)


Tree = Mapping[str, Entry]


def is_large(path: str, size: int) -> bool:
    """An empty file never is: clients send those inline."""
    return size > LARGE or (size > 0 and path.endswith(LARGE_SUFFIXES))


def tree_of(entries: Iterable[Entry]) -> Tree:
    """Sorted by path."""
    return {entry.path: entry for entry in sorted(entries, key=lambda each: each.path)}


def tree_bytes(tree: Tree) -> bytes:
    """The same files have the same bytes."""
    rows = [[entry.path, entry.digest, entry.size] for entry in tree_of(tree.values()).values()]
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def parse_tree(data: bytes) -> Tree:
    """The inverse. Raises CorruptionError."""
    try:
        return tree_of(Entry(path, Digest(digest), size) for path, digest, size in json.loads(data))
    except (ValueError, TypeError) as error:
        raise CorruptionError(
            f"a commit's list of files cannot be read: {error}", hint="run `adapters doctor --deep`"
        ) from error


def manifest_tree(manifest: Manifest) -> Tree:
    return tree_of(Entry(entry.path, entry.digest, entry.size) for entry in manifest.files)


class Remembered(Generic[K, V]):
    """Values of pure functions, the last so many."""

    def __init__(self, make: Callable[[K], V], *, most: int = _REMEMBERED) -> None:
        self._make, self._most = make, most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __call__(self, key: K) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = self._make(key)
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class Trees:
    """Trees by the digest of what lists them, and the git names of files by theirs: all of it never changes."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.of_manifest: Remembered[Digest, Tree] = Remembered(self._read_manifest, most=1024)
        self.of_commit: Remembered[Digest, Tree] = Remembered(self._read_tree, most=1024)
        self._git_sha1 = Remembered(self._hashed)

    def chunks(self, entry: Entry, *, start: int = 0) -> Iterator[bytes]:
        """Raises MissingBlobError before the first."""
        return iter((entry.data[start:],)) if entry.data is not None else self._blobs.read(entry.digest, start=start)

    def oid(self, entry: Entry) -> str:
        """The name git has for the file, or for the pointer that stands for it."""
        if entry.is_large:
            return git_sha1(lfs_pointer(entry))
        return git_sha1(entry.data) if entry.data is not None else self._git_sha1(entry.digest)

    def etag(self, entry: Entry) -> str:
        return entry.digest.hex if entry.is_large else self.oid(entry)

    def document(self, entry: Entry) -> dict[str, Any]:
        """As in a listing."""
        found: dict[str, Any] = {"type": "file", "path": entry.path, "size": entry.size, "oid": self.oid(entry)}
        if entry.is_large:
            found["lfs"] = {
                "oid": entry.digest.hex,
                "size": entry.size,
                "pointerSize": len(lfs_pointer(entry)),
            }
        return found

    def _read_manifest(self, digest: Digest) -> Tree:
        return manifest_tree(manifest_of(digest, self._blobs))

    def _read_tree(self, digest: Digest) -> Tree:
        return parse_tree(b"".join(self._blobs.read(digest)))

    def _hashed(self, digest: Digest) -> str:
        return git_sha1(b"".join(self._blobs.read(digest)))


def git_sha1(data: bytes) -> str:
    hasher = git_hasher(len(data))
    hasher.update(data)
    return hasher.hexdigest()


def lfs_pointer(entry: Entry) -> bytes:
    """https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.digest.hex}\nsize {entry.size}\n"
    return text.encode("ascii")
