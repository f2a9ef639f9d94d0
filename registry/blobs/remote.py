"""Blobs on a registry's server: only what is missing there travels, and a transfer that broke goes on where it stood."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from registry.disk import in_chunks
from registry.domain.digest import Digest, Hasher
from registry.errors import DigestMismatchError, MissingBlobError, NotFoundError
from registry.remote.client import Client, InterruptedTransferError, pause
from registry.remote.values import shaped

#: Up to this size a blob is sent in one piece.
_PIECE = 8 << 20
_MOST_DIGITS = 18
#: So often a transfer begins again that got no further.
_ATTEMPTS = 4


class RemoteBlobs:
    """See :class:`registry.blobs.protocol.BlobStore`. The server verifies what it is sent and sees to what it keeps."""

    is_local = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        if self._client.head(_path(digest)) is not None:
            return
        with SpooledTemporaryFile(max_size=_PIECE) as spool:  # what is sent may have to be sent again
            hasher = Hasher()
            for chunk in chunks:
                hasher.update(chunk)
                spool.write(chunk)
            if (actual := hasher.digest) != digest:
                raise DigestMismatchError(
                    "what was to be sent", expected=digest, actual=actual, hint="the file changed while it was read"
                )
            if hasher.size <= _PIECE:
                spool.seek(0)
                self._client.put(_path(digest), spool.read())
            else:
                self._send(digest, spool, hasher.size)

    def size(self, digest: Digest) -> int:
        headers = self._client.head(_path(digest))
        if headers is None:
            raise MissingBlobError(digest)
        length = headers.get("Content-Length", "")
        if not (length.isdecimal() and length.isascii() and len(length) <= _MOST_DIGITS):
            raise self._client.failed(f"that {digest} has a length of {length!r:.60}")
        return int(length)

    def read(self, digest: Digest, *, start: int = 0) -> Iterator[bytes]:
        size = self.size(digest)
        return self._received(digest, start, size)

    def digests(self) -> Iterator[Digest]:
        return iter(self._client.get("/v1/store/blobs", lambda found: shaped(found["digests"], list[Digest])))

    def delete(self, digest: Digest) -> None:
        self._client.post(f"/v1/store/blobs/{digest}", {}, method="DELETE")

    def _send(self, digest: Digest, spool: IO[bytes], size: int) -> None:
        """From where the server stands, again and again as long as it gets further. Raises InterruptedTransferError."""
        path = f"/v1/uploads/{digest}"
        reached, without_progress = 0, 0
        while True:
            offset = self._client.get(path, lambda found: shaped(found["offset"], int))
            if not 0 <= offset <= size:
                raise self._client.failed(f"that an upload of {size:,} bytes stands at {offset}")
            without_progress = 0 if offset > reached else without_progress + 1
            reached = max(reached, offset)
            spool.seek(offset)
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(size), "Content-Length": str(size - offset)}
            try:
                self._client.patch(path, in_chunks(spool), headers=headers)
                return
            except InterruptedTransferError:
                if without_progress > _ATTEMPTS:
                    raise
            pause(without_progress)
            if self._client.head(_path(digest)) is not None:  # only the answer was lost
                return

    def _received(self, digest: Digest, start: int, size: int) -> Iterator[bytes]:
        at, without_progress = start, 0
        while at < size:
            before = at
            try:
                with self._client.stream(_path(digest), start=at) as chunks:
                    for chunk in chunks:
                        at += len(chunk)
                        if at > size:
                            raise self._client.failed(f"with more than the {size:,} bytes that {digest} has")
                        yield chunk
                if at < size:
                    raise InterruptedTransferError(f"{digest} ended after {at:,} of {size:,} bytes")
            except InterruptedTransferError:
                without_progress = 0 if at > before else without_progress + 1
                if without_progress > _ATTEMPTS:
                    raise
            except NotFoundError:
                raise MissingBlobError(digest) from None


def _path(digest: Digest) -> str:
    return f"/v1/blobs/{digest}"
