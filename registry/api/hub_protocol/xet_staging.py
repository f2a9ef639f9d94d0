"""Xorbs that wait for the shard that makes files of them: uncompressed, each with the offsets of its chunks.

They are kept for one token's life and one actor's upload to one adapter: nobody makes a file of what somebody else sent, and a
client that remembers what it sent before is never told that it is still here.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from registry.disk import CHUNK, make_directory, unavailable
from registry.errors import InvalidInputError
from registry.formats.xet_shard import Segment

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class UnknownXorbError(InvalidInputError):
    default_code = "unknown-xorb"

    def __init__(self, xorb: str) -> None:
        super().__init__(f"the shard names xorb {xorb:.64}, which was not uploaded in this session")


class Staging:
    """``place`` holds a directory a session; ``lifetime`` in seconds."""

    def __init__(self, place: Path, *, lifetime: float) -> None:
        self._place = place
        self._lifetime = lifetime

    def session(self, *facts: str) -> Session:
        return Session(self._place / hashlib.sha256("\n".join(facts).encode()).hexdigest())

    def sweep(self) -> None:
        """Remove the sessions that nobody can use any more."""
        with suppress(OSError):
            for directory in self._place.iterdir():
                if directory.stat().st_mtime < time.time() - self._lifetime:
                    shutil.rmtree(directory, ignore_errors=True)


class Session:
    def __init__(self, place: Path) -> None:
        self._place = place

    def size(self) -> int:
        """Of everything that waits here."""
        with suppress(OSError):
            return sum(path.stat().st_size for path in self._place.iterdir())
        return 0

    def add(self, xorb: str, chunks: Iterable[bytes]) -> bool:
        """Whole or not at all; whether it is new. Raises UnavailableError, and what ``chunks`` raises."""
        path = self._path(xorb)
        offsets = array("Q", [0])
        draft = path.with_name(f"draft-{secrets.token_hex(8)}")
        try:
            make_directory(self._place)
            with open(draft, "xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    offsets.append(offsets[-1] + len(chunk))
            new = not path.exists()
            path.with_suffix(".offsets").write_bytes(offsets.tobytes())
            os.replace(draft, path)
        except OSError as error:
            raise unavailable(error, "stage a xorb", path) from error
        finally:
            draft.unlink(missing_ok=True)
        return new

    def read(self, segment: Segment) -> Iterator[bytes]:
        """Raises UnknownXorbError, InvalidInputError for chunks that it does not have."""
        path = self._path(segment.xorb)
        try:
            offsets = array("Q", path.with_suffix(".offsets").read_bytes())
            if segment.end >= len(offsets) or offsets[segment.end] - offsets[segment.start] != segment.size:
                raise InvalidInputError(
                    f"xorb {segment.xorb} has no chunks {segment.start} to {segment.end} of {segment.size:,} bytes",
                    code="malformed-shard",
                )
            with open(path, "rb") as file:
                file.seek(offsets[segment.start])
                left = segment.size
                while left and (data := file.read(min(left, CHUNK))):
                    left -= len(data)
                    yield data
        except FileNotFoundError:
            raise UnknownXorbError(segment.xorb) from None
        except OSError as error:
            raise unavailable(error, "read a xorb", path) from error

    def _path(self, xorb: str) -> Path:
        if not _HASH.fullmatch(xorb):
            raise InvalidInputError(f"{xorb!r:.80} is no hash of a xorb", code="invalid-hash")
        return self._place / xorb
