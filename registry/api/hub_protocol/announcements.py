"""What a client said it would upload, so that an upload in several commits becomes one version.

Clients ask about up to 256 files at once, and commit them in one go or, since 1.20, in parts while they still ask about more. So
what was asked about is written down in a file for each actor and adapter: the parts may reach different workers, and a commit on
record cannot tell what is missing.

1. An asking is noted, and nothing is made of it: nobody can tell yet whether it goes on with the one before it.
2. A commit takes the askings it brings files of. They are of the upload that the commit goes on with, if the client says that it is
   a further part, or else of an upload of its own. So one that died takes nothing that comes after it. Files that were all asked
   about for an upload, and not again, go on with that one: whatever the commit is called if any of them is awaited, else under
   the upload's own name. Nothing is asked about a file that is copied from another revision.
3. Some files always come, since no client is told that they are here already: the first of an asking, so that every upload is
   known by its first commit; every file that makes a version, so that what comes is never mixed with what only looks the same; and
   the last of an asking that is as long as askings get, since more may be asked about after it.
4. An upload is whole when the latter two came. One whose last asking was that long may go on: with what other files are asked
   about after it, or for a while yet. That it does not is known if the last commit was of fewer files than clients gather before
   they ask on, or the first one of more than they begin with.
5. ``upload_large_folder`` of 0.26 to 1.33 asks and commits in pieces, in any order, over hours. All of its commits are of one
   upload, and all that was asked about since it began is awaited. It asks about no file that it committed: who does has begun
   another.

Nothing but names is kept, for as long as an upload may take; of one that awaits nothing, until it was ended, however long no server
was there to do it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from registry.api.hub_protocol.locks import alone
from registry.api.hub_protocol.policy import is_whole
from registry.disk import unavailable

#: Seconds. An upload that pauses for longer than this has ended.
LIFETIME = 6 * 3600.0
#: Files that clients ask about at once.
LONGEST = 256
#: Files of a part, at least, while more are to come, and of a first one, at most: see huggingface_hub's _upload_pipeline.py.
_LEAST, _FIRST = 20, 250
_MOST = 128
#: What a file is called that is written to its end.
_DONE = ".json"


@dataclass(frozen=True, slots=True)
class Asking:
    """``names`` is what was asked about, ``needed`` what has to come of it; a ``full`` one may be followed by more."""

    id: str
    at: float
    names: frozenset[str]
    needed: frozenset[str]
    full: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """What has begun. ``title`` is its first commit's, ``begun`` when it was asked about first, ``draft`` the commit that the next
    part goes on, ``main`` and ``number`` the commit and the version that were the newest at its last one, and ``ended`` whether
    that was the last of all. ``scattered`` is 5."""

    id: str
    title: str
    begun: float
    scattered: bool = False
    at: float = 0.0
    askings: tuple[Asking, ...] = ()
    came: frozenset[str] = frozenset()
    draft: str = ""
    main: str = ""
    number: int = 0
    ended: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset().union(*(each.names for each in self.askings))

    @property
    def coming(self) -> frozenset[str]:
        return self.names - self.came

    @property
    def left(self) -> frozenset[str]:
        return frozenset().union(*(each.needed for each in self.askings)) - self.came

    @property
    def is_half(self) -> bool:
        """Whether the rest of an adapter is to be the one that is here."""
        return self.scattered and not is_whole(self.came)

    @property
    def may_end(self) -> bool:
        """Whether nothing is known to be missing of what has not become a version yet."""
        return bool(self.draft) and not self.left

    @property
    def goes_on(self) -> bool:
        """Whether something of it may come although it is whole."""
        return not self.scattered and bool(self.coming or self.is_open)

    @property
    def is_open(self) -> bool:
        """Whether more may be asked about for it."""
        return bool(self.askings) and self.askings[-1].full and not self.ended

    def after(self, brought: Collection[str]) -> Upload:
        """What it is once these came."""
        rest = replace(self, at=time.time(), came=self.came | set(brought), draft="")
        gathered = len(rest.coming | set(brought))  # what a client found to be here already, it left out
        last = gathered < _LEAST or (not self.came and gathered > _FIRST)
        return replace(rest, ended=last and not rest.left)


@dataclass(frozen=True, slots=True)
class Announced:
    """By one actor of one adapter, oldest first. ``commits`` are those that were asked about."""

    askings: tuple[Asking, ...] = ()
    uploads: tuple[Upload, ...] = ()
    commits: tuple[str, ...] = ()

    @property
    def left(self) -> frozenset[str]:
        """Everything that is still to come."""
        return frozenset().union(*(each.needed for each in self.askings), *(each.left for each in self.uploads))

    @property
    def asked(self) -> frozenset[str]:
        """What no commit brought anything of yet."""
        return frozenset().union(*(each.names for each in self.askings))

    def upload_of(self, brought: Collection[str], *, title: str, part: bool, scattered: bool) -> Upload | None:
        """2. What a commit is of, with the askings it takes; None if nobody asked. ``part`` is what the client says about it."""
        found = frozenset(brought)
        begun = self._begun(found, title=title, part=part, scattered=scattered)
        own = (begun.coming if scattered else begun.names) if begun else frozenset[str]()
        taken = self._taken_by(found - own, youngest=scattered)
        if begun is not None and scattered and any(begun.came & each.names for each in taken):
            begun = None
        if begun is None and not taken and not scattered:
            return None
        if begun is None:
            first = min((each.at for each in taken), default=time.time())
            begun = Upload(secrets.token_hex(8), title, first, scattered)
        askings = sorted({*begun.askings, *taken}, key=lambda each: each.at)
        return replace(begun, askings=tuple(askings))

    def awaits(self, upload: Upload) -> bool:
        """Whether something has to come before it is whole."""
        others = [each for each in self.askings if each not in upload.askings]
        if upload.left:
            return True
        if upload.scattered:  # 5
            return any(each.at > upload.begun and each.needed and each.names.isdisjoint(upload.came) for each in others)
        if not upload.is_open:
            return False
        return any(each.at > upload.askings[-1].at and each.names.isdisjoint(upload.names) for each in others)  # 4

    def _begun(self, found: frozenset[str], *, title: str, part: bool, scattered: bool) -> Upload | None:
        """The youngest that may go on with these."""
        if scattered:
            return next((each for each in reversed(self.uploads) if each.scattered), None)
        others = [each for each in reversed(self.uploads) if not each.scattered]
        own = [each for each in others if part and each.title == title]
        further = [each for each in own if each.coming & found or (each.is_open and self.asked & found)]
        known = [
            each
            for each in others
            if found
            and found <= each.names
            and not found <= self.asked
            and (each.coming & found or each.title == title)
        ]
        return next(iter(further or known), None)

    def _taken_by(self, found: frozenset[str], *, youngest: bool) -> set[Asking]:
        """For each file the last asking about it; one that is whole with these comes first, since most uploads are one commit, and
        one about nothing else before that."""

        def fits(asking: Asking) -> int:
            return 0 if youngest else (asking.needed <= found) + (asking.names <= found)

        ranked = sorted(self.askings, key=lambda each: (fits(each), each.at))
        return set({name: each for each in ranked for name in each.names & found}.values())


class Announcements:
    def __init__(self, place: Path) -> None:
        self._place = place

    def add(self, actor: str, adapter: str, names: Collection[str], *, needed: Collection[str], full: bool) -> None:
        asking = Asking(secrets.token_hex(8), time.time(), frozenset(names), frozenset(needed), full)
        with self._alone(actor, adapter):
            known = self.of(actor, adapter)
            self._write(actor, adapter, replace(known, askings=(*known.askings, asking)[-_MOST:]))

    def note(self, actor: str, adapter: str, upload: Upload, *, ended: bool, commit: str) -> None:
        """An upload went on with a commit, or has ended. What was asked about meanwhile stays."""
        with self._alone(actor, adapter):
            known = self.of(actor, adapter)
            askings = tuple(each for each in known.askings if each not in upload.askings)
            uploads = tuple(each for each in known.uploads if each.id != upload.id)
            kept = uploads if ended else (*uploads, upload)[-_MOST:]
            self._write(actor, adapter, Announced(askings, kept, (*known.commits, commit)[-_MOST:]))

    def of(self, actor: str, adapter: str) -> Announced:
        return self._read(self._path(actor, adapter))[2]

    def everything(self, adapter: str | None = None) -> Iterator[tuple[str, str, Announced]]:
        """Actor, adapter, and what was announced: of all, or of one adapter."""
        wanted = "*" if adapter is None else f"{_short(adapter)}-*"
        for path in sorted(self._place.glob(f"{wanted}{_DONE}")):
            yield self._read(path)

    def forget(self, actor: str, adapter: str) -> None:
        """There is no such adapter any more."""
        with self._alone(actor, adapter), suppress(OSError):
            self._path(actor, adapter).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove those of uploads that have ended."""
        with suppress(OSError):
            for path in self._place.iterdir():
                if path.stat().st_mtime < time.time() - LIFETIME and not self._read(path)[2].uploads:
                    path.unlink(missing_ok=True)

    def _read(self, path: Path) -> tuple[str, str, Announced]:
        try:
            document = json.loads(path.read_bytes())
            askings = tuple(_asking(row) for row in document["askings"])
            uploads = tuple(_upload(row) for row in document["uploads"])
            commits = tuple(str(commit) for commit in document["commits"])
            actor, adapter = str(document["actor"]), str(document["adapter"])
        except (OSError, ValueError, TypeError, KeyError):  # none, or half a file after a crash: nothing is known then
            return "", "", Announced()
        oldest = time.time() - LIFETIME
        asked = tuple(each for each in askings if each.at > oldest)
        begun = tuple(each for each in uploads if each.at > oldest or each.may_end)
        return actor, adapter, Announced(asked, begun, commits)

    def _write(self, actor: str, adapter: str, announced: Announced) -> None:
        path = self._path(actor, adapter)
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.stem}-{secrets.token_hex(8)}")
            document = {"actor": actor, "adapter": adapter, **asdict(announced)}
            draft.write_text(json.dumps(document, default=sorted))
            os.replace(draft, path)
        except OSError as error:
            raise unavailable(error, "note an upload", path) from error

    def _alone(self, actor: str, adapter: str) -> Any:
        return alone(self._place.with_name("locks"), f"{actor}\n{adapter}", what=adapter)

    def _path(self, actor: str, adapter: str) -> Path:
        return self._place / f"{_short(adapter)}-{_short(actor)}{_DONE}"


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _asking(row: dict[str, Any]) -> Asking:
    return Asking(**{**row, "names": frozenset(row["names"]), "needed": frozenset(row["needed"])})


def _upload(row: dict[str, Any]) -> Upload:
    askings = tuple(_asking(each) for each in row["askings"])
    return Upload(**{**row, "askings": askings, "came": frozenset(row["came"])})
