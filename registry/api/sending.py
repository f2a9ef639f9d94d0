"""The bytes of a blob, as fast as the network takes them.

To read what is in memory takes microseconds, to have a thread do it ten times as long. So the event loop takes what the system has
at hand, a little at a time, and a thread waits for the disk where it does not (``RWF_NOWAIT``, preadv2(2)).
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from io import FileIO
from typing import TYPE_CHECKING

from anyio import to_thread
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from registry.blobs.filesystem import FilesystemBlobs
    from registry.domain.digest import Digest

_CHUNK = 1024 << 10
_AT_HAND = getattr(os, "RWF_NOWAIT", None)
#: Where the system or the file's own does not know the question.
_UNKNOWN = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def sent(digest: Digest, start: int, stop: int, blobs: FilesystemBlobs) -> AsyncIterator[bytes | memoryview]:
    """From ``start`` to before ``stop``. Raises MissingBlobError, UnavailableError here, not in the middle of an answer."""
    return _read(blobs.open(digest), start, stop)


async def _read(file: FileIO, start: int, stop: int) -> AsyncIterator[bytes | memoryview]:
    with file:
        while start < stop:
            count = min(_CHUNK, stop - start)
            chunk: bytes | memoryview | None = _at_hand(file.fileno(), count, start)
            if chunk is None:
                chunk = await to_thread.run_sync(os.pread, file.fileno(), count, start)
            else:
                await checkpoint()  # others want to be served too
            if not chunk:
                return
            yield chunk
            start += len(chunk)


def _at_hand(descriptor: int, count: int, start: int) -> memoryview | None:
    """None if that would have to wait."""
    if _AT_HAND is None:
        return None
    buffer = bytearray(count)
    try:
        read = os.preadv(descriptor, [buffer], start, _AT_HAND)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    return memoryview(buffer)[:read]
