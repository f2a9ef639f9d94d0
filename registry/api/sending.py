"""The bytes of a blob, as fast as the network takes them.

To read what is in memory takes microseconds, to have a thread do it ten times as long. So the event loop itself reads what the
system has at hand (``RWF_NOWAIT``, preadv2(2), tells), and a thread waits for the disk where it does not.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from io import FileIO
from typing import TYPE_CHECKING

from anyio import to_thread
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from registry.blobs.filesystem import FilesystemBlobs
    from registry.domain.digest import Digest

#: Stays in a processor's cache between the file and the socket.
_CHUNK = 512 << 10
_AT_HAND = getattr(os, "RWF_NOWAIT", None)


def sent(digest: Digest, start: int, stop: int, blobs: FilesystemBlobs) -> AsyncIterator[bytes]:
    """From ``start`` to before ``stop``. Raises MissingBlobError, UnavailableError here, not in the middle of an answer."""
    return _read(blobs.open(digest), start, stop)


async def _read(file: FileIO, start: int, stop: int) -> AsyncIterator[bytes]:
    with file:
        descriptor = file.fileno()
        while start < stop:
            count = min(_CHUNK, stop - start)
            if _is_at_hand(descriptor, start + count - 1):
                chunk = os.pread(descriptor, count, start)
                await checkpoint()  # others want to be served too
            else:
                chunk = await to_thread.run_sync(os.pread, descriptor, count, start)
            if not chunk:
                return
            yield chunk
            start += len(chunk)


def _is_at_hand(descriptor: int, last: int) -> bool:
    """Whether the last byte of what is to be read is in memory: the system reads ahead, and drops from the beginning."""
    if _AT_HAND is None:
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], last, _AT_HAND) == 1
    except OSError:  # it is not, or the file's system cannot tell
        return False
