"""What has changed since an answer was made, learnt from the audit.

The catalog's generation, a stamp that costs microseconds, says that something changed; only then are the events since the last
time read, which say what. So a push to one adapter does not cost the answers about the others. Every mutation is an event in its
own transaction, which makes this exact: an answer that was begun when event ``n`` was the last may hold what came after ``n``, and
then it is made once more, but it never lacks what came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.catalog.sql import SqlCatalog
    from registry.domain.version import AuditEntry

#: Events that may concern answers about any adapter.
_CONCERN_ALL = frozenset(["base", "base-alias", "token", "token-revoke", "rename"])
_PAGE = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """``history`` counts how often the catalog was replaced by another; ``sequence`` is the last event's number."""

    history: int
    sequence: int


def settled(catalog: SqlCatalog, read: Callable[[], T]) -> tuple[bytes, T]:
    """What ``read`` finds, and the generation that it belongs to. A stamp alone may be of a commit that is under way: if that is
    never finished, the next one has the same stamp. Reading waits for its end, so the stamp is looked at again afterwards."""
    while True:
        generation = catalog.generation()
        found = read()
        if catalog.generation() == generation:
            return generation, found


class Freshness:
    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self._generation: bytes | None = None
        self._hash = ""  # of the last event that was read
        self._all = 0
        self._changed: dict[str, int] = {}
        self.now = Moment(0, 0)

    def is_current(self) -> bool:
        """Whether nothing was committed since :meth:`catch_up`."""
        return self._catalog.generation() == self._generation

    def catch_up(self) -> None:
        """Read what happened meanwhile. May wait for a writer's commit."""
        with self._lock:
            if not self.is_current():
                self._generation, _ = settled(self._catalog, self._read_on)

    def holds(self, since: Moment, adapter: str | None) -> bool:
        """Whether an answer that was begun at ``since`` is true still. ``adapter`` (as a key) is what it is about, None for
        everything."""
        if adapter is None or since.history != self.now.history:
            return since == self.now
        return max(self._all, self._changed.get(adapter, 0)) <= since.sequence

    def _read_on(self) -> None:
        known = self.now.sequence
        entries = self._catalog.events(max(0, known - 1), limit=_PAGE) if self._generation else []
        follows = bool(entries) and (known == 0 or (entries[0].sequence, entries[0].hash) == (known, self._hash))
        if not follows or len(entries) == _PAGE:
            self._begin_again()
            return
        for entry in entries:
            if entry.sequence > known:
                self._enter(entry)

    def _enter(self, entry: AuditEntry) -> None:
        if entry.action in _CONCERN_ALL:
            self._all = entry.sequence
        elif entry.adapter is not None:
            self._changed[entry.adapter.lower()] = entry.sequence
        self.now, self._hash = Moment(self.now.history, entry.sequence), entry.hash

    def _begin_again(self) -> None:
        """No answer of before holds: at the start, after more events than are worth reading, or if another catalog (a backup) was
        put in this one's place."""
        newest = next(iter(self._catalog.audit(limit=1)), None)
        self.now = Moment(self.now.history + 1, newest.sequence if newest else 0)
        self._hash = newest.hash if newest else ""
        self._all = 0
        self._changed.clear()
