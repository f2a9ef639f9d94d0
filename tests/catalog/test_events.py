"""The chain of events: whole as it was written, and no edit, loss or exchange goes unseen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog.events import ORIGIN, Event, broken_links, parse_event, parse_segment, segment_bytes
from registry.errors import CorruptionError

FACTS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3)


def chain(facts: list[dict[str, object]]) -> list[Event]:
    events: list[Event] = []
    previous = str(ORIGIN)
    for sequence, each in enumerate(facts, start=1):
        events.append(Event(sequence, "tag", "team/x", "2026-01-01T00:00:00Z", "tester", previous, each))
        previous = events[-1].hash
    return events


CHAINS = st.lists(FACTS, min_size=1, max_size=6).map(chain)


def broken(events: list[Event]) -> bool:
    """Whether somebody who holds the last hash sees it."""
    return list(broken_links(events)) != []


@given(CHAINS)
def test_what_was_written_is_whole_and_read_again(events: list[Event]) -> None:
    assert not broken(events)
    data = segment_bytes([event.body for event in events])
    assert parse_segment(data) == events
    assert data.count(b"\n") == len(events)
    assert data.isascii()


@given(CHAINS, st.data())
def test_no_entry_but_the_last_can_be_edited(events: list[Event], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(events) - 1))
    edited = replace(events[position], actor="somebody else")
    assert edited.hash != events[position].hash
    if position < len(events) - 1:
        assert broken([*events[:position], edited, *events[position + 1 :]])


@given(CHAINS, st.data())
def test_no_entry_but_the_last_can_be_dropped(events: list[Event], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(events) - 1))
    assert broken(events[:position] + events[position + 1 :]) == (position < len(events) - 1)


@given(CHAINS, st.data())
def test_no_entries_can_be_exchanged_or_repeated(events: list[Event], data: st.DataObject) -> None:
    order = data.draw(st.permutations(events))
    assert broken(order) == (order != events)
    assert broken([*events, events[-1]])


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", "null", "{}", '{"sequence":1}', '{"sequence":1, "action":"tag"}', '{"a":1,"sequence":1}']
    + [chain([{}])[0].body + " ", " " + chain([{}])[0].body, chain([{}])[0].body.replace(",", ", ", 1)],
)
def test_anything_but_the_canonical_form_is_corruption(body: str) -> None:
    with pytest.raises(CorruptionError):
        parse_event(body)


@pytest.mark.parametrize("data", [b"\xff\n", b"{}\n", b"\n", segment_bytes([chain([{}])[0].body])[:-5]])
def test_a_torn_segment_is_corruption(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        parse_segment(data)


def test_a_line_of_its_own_in_a_value_does_not_split_an_entry() -> None:
    events = chain([{"note": "a\u2028b\nc\x85d"}])
    assert parse_segment(segment_bytes([event.body for event in events])) == events
