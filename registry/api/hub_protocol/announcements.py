"""What a client said it would upload, so that an upload in several commits becomes one version.

Clients ask about up to 256 files at once, and commit them in one go or, since 1.20, in parts while they still ask about more. So
what was asked about is written down in a file for each actor and adapter: the parts may reach different workers, and a commit on
record cannot tell what is missing. Two things of an asking have to come, since no client is told that they are here already:

1. every file that makes a version: what comes is then never mixed with what only looks the same, or was the same when it was asked;
2. the last file of an asking that is as long as askings get: more may be asked about after it, and the commit that brings it was
   cut either at the end of the upload, or further on, after the next asking.

``upload_large_folder`` of 0.26 to 1.16 asks and commits in pieces of its own, in any order; see :meth:`Announcements.scattered`.
Nothing but names is kept, for as long as an upload may take.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from registry.disk import unavailable

#: Seconds. An upload that pauses for longer than this has ended.
LIFETIME = 6 * 3600.0
#: Files that clients ask about at once.
LONGEST = 256
_MOST = 64


@dataclass(frozen=True, slots=True)
class Upload:
    """``left`` and ``came`` are files of the adapter. ``last`` ends an asking that may not be the upload's last, until it came.
    ``draft`` is the commit that the next part goes on."""

    at: float
    left: frozenset[str] = frozenset()
    last: str = ""
    came: frozenset[str] = frozenset()
    begun: bool = False
    draft: str = ""

    @property
    def awaited(self) -> frozenset[str]:
        return self.left | ({self.last} if self.last else frozenset())

    def is_about(self, paths: Collection[str]) -> bool:
        return not (self.awaited | self.came).isdisjoint(paths)

    def after(self, brought: Collection[str], *, draft: str = "") -> Upload:
        """What it is once these came."""
        return Upload(
            self.at,
            left=self.left - set(brought),
            last="" if self.last in brought else self.last,
            came=self.came | (self.left & set(brought)),
            begun=True,
            draft=draft,
        )


class Announcements:
    """What is read may be older than what another worker writes at the same moment; then an upload that reaches two workers at
    once becomes two versions."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def add(self, actor: str, adapter: str, paths: Collection[str], *, last: str = "") -> None:
        """One asking: the files that make a version, and the last one of as many as can be asked about at once. It goes on with an
        upload whose last asking was as long. If that was about the same files, it begins another attempt, in place of it."""
        fresh, names = frozenset(paths), {*paths, last}
        known = self._read(actor, adapter)
        before = next((each for each in reversed(known) if each.last and not each.is_about(names)), None)
        if before is not None:
            known.remove(before)
            self._write(actor, adapter, [*known, replace(before, at=time.time(), left=before.left | fresh, last=last)])
        elif fresh or last:
            others = [each for each in known if not (last and each.begun and each.is_about(names))]
            self._write(actor, adapter, [*others[-_MOST:], Upload(time.time(), fresh, last)])

    def all_of(self, actor: str, adapter: str) -> set[str]:
        """Everything of the adapter that is still to come."""
        return {path for each in self._read(actor, adapter) for path in each.left}

    def has_draft(self, actor: str, adapter: str, draft: str) -> bool:
        return any(each.draft == draft for each in self._read(actor, adapter))

    def upload_of(self, actor: str, adapter: str, brought: Collection[str], *, continued: bool) -> Upload | None:
        """The upload that a commit is of: one that is whole with it, or else the youngest it brings something of. ``continued``
        is what the client says about it: then it is one that has begun, if there is any."""
        found = set(brought)
        known = self._read(actor, adapter)
        touched = [each for each in known if each.awaited & found]
        if continued and not touched:
            touched = [each for each in known if each.draft]
        ranked = sorted(touched, key=lambda each: (each.begun == continued, each.awaited <= found))
        return ranked[-1] if ranked else None

    def scattered(self, actor: str, adapter: str) -> Upload:
        """All uploads of the actor as one: of a tool whose askings and commits have nothing to do with each other."""
        known = self._read(actor, adapter)
        return Upload(
            max((each.at for each in known), default=time.time()),
            left=frozenset().union(*(each.left for each in known)),
            came=frozenset().union(*(each.came for each in known)),
            begun=any(each.begun for each in known),
            draft=next((each.draft for each in reversed(known) if each.draft), ""),
        )

    def put(self, actor: str, adapter: str, before: Upload, after: Upload | None) -> None:
        """An upload went on, or has ended."""
        rest = [each for each in self._read(actor, adapter) if each != before]
        self._write(actor, adapter, [*rest, replace(after, at=time.time())] if after is not None else rest)

    def put_all(self, actor: str, adapter: str, after: Upload | None) -> None:
        """All uploads of the actor, as one, went on or have ended."""
        self._write(actor, adapter, [replace(after, at=time.time())] if after is not None else [])

    def sweep(self) -> None:
        """Remove those of uploads that have ended."""
        with suppress(OSError):
            for path in self._place.iterdir():
                if path.stat().st_mtime < time.time() - LIFETIME:
                    path.unlink(missing_ok=True)

    def _read(self, actor: str, adapter: str) -> list[Upload]:
        try:
            uploads = [_upload(row) for row in json.loads(self._path(actor, adapter).read_bytes())]
        except (OSError, ValueError, TypeError):  # none, or half a file after a crash: nothing is known then
            return []
        return [each for each in uploads if each.at > time.time() - LIFETIME]

    def _write(self, actor: str, adapter: str, uploads: list[Upload]) -> None:
        path = self._path(actor, adapter)
        try:
            if not uploads:
                path.unlink(missing_ok=True)
                return
            self._place.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
            draft.write_text(json.dumps([asdict(each) for each in uploads], default=sorted))
            os.replace(draft, path)
        except OSError as error:
            raise unavailable(error, "note an upload", path) from error

    def _path(self, actor: str, adapter: str) -> Path:
        return self._place / hashlib.sha256(f"{actor}\n{adapter}".encode()).hexdigest()


def _upload(row: dict[str, Any]) -> Upload:
    return Upload(**{**row, "left": frozenset(row["left"]), "came": frozenset(row["came"])})
