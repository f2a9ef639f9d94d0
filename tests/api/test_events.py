"""Events as a stream: in order, from where a reader stopped, only what the reader may see, and no longer than their token lives."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.api.routes import events
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(events, "_LOOK", 0.02)
    monkeypatch.setattr(events, "_HEARTBEAT", 0.2)
    with site(tmp_path, write_adapter) as found:
        yield found


@contextmanager
def listening(here: Site, who: str, **headers: str) -> Iterator[Iterator[str]]:
    """Blocks of the stream, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=10)
    sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {here.tokens[who]}", **headers}
    connection.request("GET", "/v1/events", headers=sent)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("content-type", "").startswith("text/event-stream")

    def blocks() -> Iterator[str]:
        lines: list[str] = []
        while line := answer.readline().decode():
            if line == "\n":
                yield "".join(lines)
                lines = []
            else:
                lines.append(line)

    try:
        yield blocks()
    finally:
        connection.close()


def next_event(blocks: Iterator[str]) -> tuple[int, dict[str, object]]:
    block = next(block for block in blocks if not block.startswith(":"))
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    document = json.loads(fields["data"])
    assert (int(fields["id"]), fields["event"]) == (document["sequence"], document["action"])
    return int(fields["id"]), document


def test_a_reader_sees_what_happens_from_where_they_were(here: Site) -> None:
    newest = here.shelf.log(limit=1)[0].sequence
    with listening(here, "bob", **{"Last-Event-ID": str(newest)}) as blocks:
        here.shelf.set_tags("a/secret@1", {"hidden": "1"})
        here.shelf.set_tags("b/open@1", {"seen": "1"})
        sequence, document = next_event(blocks)
        assert (document["adapter"], document["action"], document["actor"]) == ("b/open", "tag", "local")
        assert sequence == newest + 2
        assert next(blocks).startswith(":")  # a sign of life
        here.shelf.set_alias("b/open", "production", 1)
        assert next_event(blocks)[1]["action"] == "alias"


def test_a_stream_tells_the_same_as_pages(here: Site) -> None:
    for who in ("alice", "bob", "root"):
        items = here.ask("GET", "/v1/events?limit=500", who).json["items"]
        with listening(here, who, **{"Last-Event-ID": "0"}) as blocks:
            assert [next_event(blocks)[1] for _ in items] == items
        adapters = {item["adapter"] for item in items}
        seen = {"alice": {"a/secret"}, "bob": {"b/open"}, "root": {"a/secret", "b/open", None}}
        assert adapters == seen[who]


def test_a_stream_ends_with_its_token(here: Site) -> None:
    with listening(here, "bob") as blocks:
        next_event(blocks)
        assert here.ask("DELETE", f"/v1/tokens/{here.tokens['bob'][4:14]}", "root").status == 204
        here.shelf.set_tags("b/open@1", {"late": "1"})
        assert not [block for block in blocks if "late" in block]


def test_a_parent_that_one_may_not_read_is_there_by_its_digest_alone(here: Site, write_adapter: WriteAdapter) -> None:
    child = write_adapter("child", lora_tensors(value=3.0))
    here.shelf.push(child, name="b/child", parents=["a/secret@1"], evaluations=["acc=0.9"])
    here.shelf.promote("b/child@1", "production", against="a/secret@1", no_regression=["acc"])
    digest = here.shelf.show("a/secret@1").version.digest
    for path in ("/v1/adapters/b/child/versions/1", "/v1/adapters/b/child/versions/1/lineage", "/v1/events?limit=500"):
        told = here.ask("GET", path, "bob").body
        assert b"secret" not in told, path
        assert b"a/secret@1" in here.ask("GET", path, "root").body
    path = "/v1/adapters/b/child/versions/1"
    assert [edge["parent"] for edge in here.ask("GET", path, "bob").json["lineage"]] == [digest]


def test_a_child_that_one_may_not_read_is_not_there(here: Site, write_adapter: WriteAdapter) -> None:
    here.shelf.push(write_adapter("hidden", lora_tensors(value=3.0)), name="a/secret", parents=["b/open@1"])
    here.shelf.push(write_adapter("seen", lora_tensors(value=4.0)), name="b/child", parents=["b/open@1"])
    path = "/v1/adapters/b/open/versions/1"
    for who, children in {"bob": ["b/child@1"], "root": ["a/secret@2", "b/child@1"]}.items():
        assert here.ask("GET", path, who).json["children"] == children
        assert here.ask("GET", f"{path}/lineage", who).json["children"] == children
        listed = here.ask("GET", "/v1/adapters?parent=b/open@1&all_versions=true", who).json["items"]
        assert [item["reference"] for item in listed] == children
    assert here.ask("GET", "/v1/adapters?parent=a/secret@1", "bob").status == 404


def test_what_becomes_readable_is_seen_at_once(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """A kept answer about a child is also about whether its parent may be read."""
    with site(tmp_path, write_adapter, anonymous_read=True) as here:
        here.shelf.push(write_adapter("child", lora_tensors(value=3.0)), name="b/child", parents=["a/secret@1"])
        path = "/v1/adapters/b/child/versions/1"
        for private in (True, False, True):
            with here.shelf.catalog.writing() as writer:
                writer.set_private(here.shelf.adapter("a/secret"), private=private)
            for _ in range(3):
                assert (b"a/secret@1" in here.ask("GET", path).body) is not private
