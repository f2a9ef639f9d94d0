"""The bytes of a version's file, held against what its manifest says of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from registry.domain.digest import Hasher
from registry.domain.manifest import FileEntry
from registry.errors import CorruptionError, DigestMismatchError


def contents(entry: FileEntry, chunks: Iterable[bytes], *, hint: str) -> Iterator[bytes]:
    """``chunks`` as they come, and never more than the entry's size. Raises CorruptionError as soon as there are more bytes, and
    DigestMismatchError at the end if they were others."""
    hasher = Hasher()
    for chunk in chunks:
        hasher.update(chunk)
        if hasher.size > entry.size:
            if isinstance(chunks, Generator):
                chunks.close()
            raise CorruptionError(
                f"the stored {entry.path} has more than the {entry.size:,} bytes that its version says",
                code="digest-mismatch",
                hint=hint,
            )
        yield chunk
    if (hasher.digest, hasher.size) != (entry.digest, entry.size):
        raise DigestMismatchError(f"the stored {entry.path}", expected=entry.digest, actual=hasher.digest, hint=hint)
