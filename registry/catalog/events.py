"""Mutations as values: what happened, chained by hash so that none can be edited, dropped or reordered unseen.

An event's canonical JSON contains the hash of the event before it; its own hash is the SHA-256 of that JSON. The first
one chains to :data:`ORIGIN`. A *segment* is the events of one transaction, one JSON document a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from registry.domain.digest import Digest
from registry.errors import CorruptionError

ORIGIN = Digest.of(b"")


@dataclass(frozen=True, slots=True)
class Event:
    sequence: int
    action: str
    adapter: str | None  #: as shown, ``namespace/name``
    at: str
    actor: str
    previous: str
    facts: Mapping[str, object]

    @property
    def body(self) -> str:
        document = {
            "sequence": self.sequence,
            "action": self.action,
            "adapter": self.adapter,
            "at": self.at,
            "actor": self.actor,
            "previous": self.previous,
            "facts": self.facts,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def hash(self) -> str:
        return Digest.of(self.body.encode())


def parse_event(body: str) -> Event:
    """Raises :class:`CorruptionError` for anything that is not an event's canonical JSON."""
    try:
        event = Event(**json.loads(body))
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"an audit entry cannot be read: {error}") from error
    if event.body != body:
        raise CorruptionError(f"audit entry {event.sequence} is not in canonical form: it was edited")
    return event


def segment_bytes(bodies: Iterable[str]) -> bytes:
    return "".join(f"{body}\n" for body in bodies).encode()


def parse_segment(data: bytes) -> list[Event]:
    try:
        return [parse_event(line) for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise CorruptionError(f"a journal segment is not text: {error}") from error


def broken_links(events: Iterable[Event]) -> Iterator[str]:
    """One sentence for the first place where the chain does not hold; nothing if it does."""
    previous, sequence = str(ORIGIN), 0
    for event in events:
        if event.sequence != sequence + 1:
            yield f"audit entry {sequence + 1} is missing: {event.sequence} follows {sequence}"
            return
        if event.previous != previous:
            yield f"audit entry {event.sequence} does not follow the one before it: one of the two was changed"
            return
        previous, sequence = event.hash, event.sequence
