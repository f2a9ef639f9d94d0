"""A request with an ``Idempotency-Key`` is carried out once, however often it arrives: the answer is kept and given again.

1. The record is locked while the request is carried out: one that arrives meanwhile waits.
2. The answer is on record, with the last entry that the audit will have of it, before the catalog's transaction ends.
3. Whether the answer holds, the audit says: by the number and hash of that entry, which no other request can have. So it does not
   matter when a server dies: either the entry is there, and the answer is given again, or nothing was done, and it is done now.

Records are files, so that all workers share them; they end by the clock, and the oldest of an actor who makes very many. A refusal
is not kept, nor an answer to what changed nothing: the next attempt may do so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Header

from registry.api.tidying import remove
from registry.disk import sync, unavailable, write_at
from registry.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from fastapi import Request
    from pydantic import BaseModel

    from registry.api.callers import Caller

_LONGEST_KEY = 200
#: Bytes of an answer that is kept; of a longer one it is kept that it was given.
_LARGEST = 1 << 20
#: Records of one actor.
_MOST = 5000

Answer = dict[str, Any]
Key = Annotated[
    str | None, Header(description="The request is carried out once, however often it arrives with this key.")
]


def same_request(request: Request, wanted: BaseModel, *more: str | None) -> bytes:
    """What makes two requests the same: the same body for the same resource, and whatever else they say."""
    return "\n".join([request.url.path, wanted.model_dump_json(), *map(str, more)]).encode()


@dataclass(frozen=True)
class Record:
    """``entry`` is the last one that the audit has of the request if it was carried out."""

    body: str
    entry: tuple[int, str]
    answer: Answer | None

    @classmethod
    def parse(cls, data: bytes) -> Record | None:
        """None for one that a killed worker did not finish: then its transaction had not ended."""
        try:
            found = json.loads(data)
            sequence, hashed = found["entry"]
            return cls(found["body"], (int(sequence), str(hashed)), found["answer"])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def document(self) -> bytes:
        def written(answer: Answer | None) -> bytes:
            return json.dumps({"body": self.body, "entry": self.entry, "answer": answer}).encode()

        whole = written(self.answer)
        return whole if len(whole) <= _LARGEST else written(None)


class Once:
    """``place`` is a directory of the server's own; ``lifetime`` in seconds; ``most`` records are kept of each actor."""

    def __init__(self, place: Path, *, lifetime: float, most: int = _MOST) -> None:
        self._place = place
        self._lifetime = lifetime
        self._most = most

    def done(self, caller: Caller, key: str | None, body: bytes, action: Callable[[Caller], Answer]) -> Answer:
        """What ``action`` answers, or answered before to the same request. It must change things by the caller that it is given,
        whose transactions end when its answer is on record. Raises ConflictError for a key that was used for another request."""
        if key is None:
            return action(caller)
        if not key.isprintable() or not 0 < len(key) <= _LONGEST_KEY:
            raise InvalidInputError("the Idempotency-Key must be 1 to 200 printable characters", code="invalid-key")
        path = self._path(caller, key)
        shown = hashlib.sha256(body).hexdigest()
        with self._locked(path) as descriptor:  # 1
            known = self._read(descriptor)
            if known is not None and caller.registry.catalog.holds(known.entry):  # 3
                return _given_again(known, shown)
            try:
                return _carried_out(caller, shown, action, descriptor, path)
            finally:
                if os.fstat(descriptor).st_size == 0:
                    path.unlink(missing_ok=True)

    def was_done(self, caller: Caller, key: str) -> bool:
        """Whether a request with the key was carried out; one that is being carried out is waited for."""
        with suppress(FileNotFoundError), open(self._path(caller, key), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            known = self._read(file.fileno())
            return known is not None and caller.registry.catalog.holds(known.entry)
        return False

    def sweep(self) -> None:
        """Remove the records that have ended."""
        for directory in self._place.glob("*"):
            with suppress(OSError):
                for path in directory.iterdir():
                    if path.stat().st_mtime <= time.time() - self._lifetime:
                        remove(path)
                directory.rmdir()  # if nothing is left

    def _path(self, caller: Caller, key: str) -> Path:
        return (
            self._place / hashlib.sha256(caller.actor.encode()).hexdigest() / hashlib.sha256(key.encode()).hexdigest()
        )

    @contextmanager
    def _locked(self, path: Path) -> Iterator[int]:
        descriptor = self._opened(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened(self, path: Path) -> int:
        """A descriptor of the record, which nobody else has locked."""
        try:
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._make_room(path)
                with suppress(FileNotFoundError):  # the last record of a directory was removed just now
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    if os.fstat(descriptor).st_nlink:
                        return descriptor
                    os.close(descriptor)  # it was removed while this one waited
        except OSError as error:
            raise unavailable(error, "note a request", path) from error

    def _make_room(self, path: Path) -> None:
        """The oldest tenth goes when there are too many."""
        names = os.listdir(path.parent)
        if len(names) < self._most or path.name in names:
            return
        ages = []
        for name in names:
            with suppress(FileNotFoundError):
                ages.append((os.stat(path.parent / name).st_mtime, name))
        for _, name in sorted(ages)[: max(1, self._most // 10)]:
            remove(path.parent / name)

    def _read(self, descriptor: int) -> Record | None:
        status = os.fstat(descriptor)
        if status.st_mtime <= time.time() - self._lifetime:
            return None
        return Record.parse(os.pread(descriptor, status.st_size, 0))


def _given_again(known: Record, shown: str) -> Answer:
    if known.body != shown:
        raise ConflictError(
            "this Idempotency-Key was used for another request",
            code="idempotency-key-reused",
            hint="take a new key for a new request",
        )
    if known.answer is None:
        raise ConflictError(
            "this request was carried out before, and its answer was too long to be kept",
            code="already-done",
            hint="look at what it was to change; do not send it again with another key",
        )
    return known.answer


def _carried_out(caller: Caller, shown: str, action: Callable[[Caller], Answer], descriptor: int, path: Path) -> Answer:
    with caller.registry.catalog.joined() as catalog:
        answer = action(replace(caller, registry=replace(caller.registry, catalog=catalog)))
        if (entry := catalog.last_entry) is not None:  # 2
            _write(Record(shown, entry, answer), descriptor, path)
    return answer


def _write(record: Record, descriptor: int, path: Path) -> None:
    """Durable, as what it is about will be."""
    try:
        os.ftruncate(descriptor, 0)
        write_at(descriptor, record.document, 0)
        os.fsync(descriptor)
        sync(path.parent)
    except OSError as error:
        raise unavailable(error, "note a request", path) from error
