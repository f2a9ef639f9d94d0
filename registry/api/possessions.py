"""Who has shown that they have which bytes.

Knowing a digest gives nobody the bytes behind it: a version or a commit may be made of a blob only by those who uploaded all of
it, or may read it. An upload therefore leaves a marker, an empty file named for the caller and the digest,
which all workers see and which ends by the clock.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from registry.disk import unavailable
from registry.domain.access import Action
from registry.errors import MissingBlobError

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.blobs.protocol import LocalBlobStore
    from registry.domain.digest import Digest


class Possessions:
    """``place`` is a directory of the server's own; ``lifetime`` in seconds."""

    def __init__(self, place: Path, blobs: LocalBlobStore, *, lifetime: float) -> None:
        self._place = place
        self._blobs = blobs
        self._lifetime = lifetime

    def note(self, actor: str, digest: Digest) -> None:
        """``actor`` sent all of the bytes, which may have been here for long. Raises UnavailableError."""
        self._blobs.renew(digest)
        path = self._path(actor, digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise unavailable(error, "note an upload", path) from error

    def has(self, actor: str, digest: Digest) -> bool:
        try:
            return os.stat(self._path(actor, digest)).st_mtime > time.time() - self._lifetime
        except FileNotFoundError:
            return False

    def size(self, caller: Caller, digest: Digest) -> int:
        """Of a blob that something of theirs may be made of, and that they may read. Raises MissingBlobError for one that is not
        here, and for one that is not theirs."""
        if not self._may_use(caller, digest):
            raise MissingBlobError(digest)
        return self._blobs.size(digest)

    def promise(self, caller: Caller, digest: Digest) -> int | None:
        """The size of one that they need not send, which is as new from now on; None of one that they have to."""
        try:
            size = self.size(caller, digest)
        except MissingBlobError:
            return None
        self._blobs.renew(digest)
        return size

    def _may_use(self, caller: Caller, digest: Digest) -> bool:
        """Whether they sent it, may read it through an adapter, or everybody may, as what is known of a base model."""
        if caller.open or self.has(caller.actor, digest):
            return True
        catalog = caller.registry.catalog
        if any(caller.may(Action.READ, adapter) for adapter in catalog.holders(digest)):
            return True
        return any(base.digest == digest for base in catalog.bases())

    def sweep(self) -> None:
        """Remove the markers that have ended."""
        for directory in self._place.glob("*"):
            with suppress(OSError):
                for path in directory.iterdir():
                    if path.stat().st_mtime <= time.time() - self._lifetime:
                        path.unlink(missing_ok=True)
                directory.rmdir()  # if nothing is left

    def _path(self, actor: str, digest: Digest) -> Path:
        return self._place / hashlib.sha256(actor.encode()).hexdigest() / digest.hex
