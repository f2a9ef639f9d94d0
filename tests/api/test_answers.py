"""Answers that are kept: the same as those that are made, given again only while they are true, and never stale."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.freshness import Freshness
from registry.api.settings import Settings
from registry.connect import Registry, connect
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def shelf(tmp_path: Path, write_adapter: WriteAdapter) -> Registry:
    registry = connect(tmp_path / "registry", namespace="team")
    registry.push(write_adapter("a"), alias="production")
    registry.push(write_adapter("a2", lora_tensors(value=0.25)), name="a")
    registry.push(write_adapter("b", lora_tensors(value=0.5)), alias="production")
    return registry


@pytest.fixture
def client(shelf: Registry, tmp_path: Path) -> TestClient:
    return TestClient(create_app(Settings(tmp_path / "registry")), base_url="http://localhost")


def hits(client: TestClient) -> int:
    found: int = client.app._app._app._counters._given  # type: ignore[attr-defined]
    return found


def test_an_answer_is_kept_until_its_adapter_changes(client: TestClient, shelf: Registry) -> None:
    """And not given up for what happens to others."""
    path = "/v1/resolve/team/a?alias=production"
    first = client.get(path)
    assert (first.status_code, first.json()["version"]) == (200, 1)
    assert client.get(path).content == first.content
    assert hits(client) == 1
    shelf.set_alias("b", "staging", 1)
    assert client.get(path).headers["etag"] == first.headers["etag"]
    assert hits(client) == 2
    shelf.set_alias("a", "production", 2)
    moved = client.get(path)
    assert moved.json()["version"] == 2
    assert moved.headers["etag"] != first.headers["etag"]
    assert hits(client) == 2


def test_an_unchanged_answer_is_not_sent_again(client: TestClient, shelf: Registry) -> None:
    path = "/v1/resolve/team/a?alias=production"
    etag = client.get(path).headers["etag"]
    for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    shelf.set_alias("a", "production", 2)
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    "write",
    [
        lambda registry: registry.alias_base("other/name", "Org/Base"),
        lambda registry: registry.yank("a@1", "bad"),
        lambda registry: registry.set_tags("a@1", {"k": "v"}),
        lambda registry: registry.add_evaluations("a@1", "acc=0.5"),
    ],
)
def test_every_write_about_it_makes_it_again(client: TestClient, shelf: Registry, write: object) -> None:
    path = "/v1/adapters/team/a/versions/1"
    client.get(path)
    write(shelf)  # type: ignore[operator]
    assert client.get(path).json()["yanked"] is shelf.show("a@1").document()["yanked"]
    assert client.get(path).json()["tags"] == shelf.show("a@1").document()["tags"]
    assert hits(client) == 1


def test_an_answer_about_several_is_made_again_for_any_change(client: TestClient, shelf: Registry) -> None:
    before = client.get("/v1/adapters").json()
    shelf.set_tags("b@1", {"k": "v"})
    after = client.get("/v1/adapters").json()
    assert before != after
    assert [item["tags"] for item in after["items"]] == [{}, {"k": "v"}]


def test_answers_differ_by_who_asks_and_how(client: TestClient) -> None:
    """The host is part of the addresses of the files."""
    path = "/v1/resolve/team/a?alias=production"
    one = client.get(path, headers={"Host": "localhost:1"}).json()
    other = client.get(path, headers={"Host": "127.0.0.1:2"}).json()
    assert one["files"][0]["url"].startswith("http://localhost:1/")
    assert other["files"][0]["url"].startswith("http://127.0.0.1:2/")


def test_a_refusal_is_not_kept(client: TestClient, shelf: Registry) -> None:
    path = "/v1/resolve/team/a?alias=later"
    assert client.get(path).status_code == 404
    shelf.set_alias("a", "later", 1)
    assert client.get(path).status_code == 200


def test_a_catalog_that_was_replaced_is_another_history(client: TestClient, shelf: Registry, tmp_path: Path) -> None:
    """Also if by chance it has as many events as the one before."""
    path = "/v1/resolve/team/a?alias=production"
    catalog = tmp_path / "registry" / "catalog.db"
    backup = catalog.read_bytes()
    shelf.set_alias("a", "production", 2)
    assert client.get(path).json()["version"] == 2
    restored = tmp_path / "restored"
    restored.write_bytes(backup)
    restored.replace(catalog)
    for segment in (tmp_path / "registry" / "journal").glob("*/*.jsonl"):
        if int(segment.stem) > len(connect(tmp_path / "registry").log()):
            segment.unlink()
    connect(tmp_path / "registry", namespace="team").set_tags("a@1", {"k": "v"})
    assert client.get(path).json()["version"] == 1


def test_no_answer_is_older_than_what_was_acknowledged_before_it_was_asked_for(client: TestClient, shelf: Registry) -> None:
    """Writers and readers at once; each look-up must show the last acknowledged move, or a later one."""
    moves, wrong = 60, []
    acknowledged = [1]
    start = Barrier(4)

    def read() -> None:
        start.wait()
        while acknowledged[0] < moves:
            least = acknowledged[0]
            shown = client.get("/v1/adapters/team/a/versions/1").json()["tags"].get("move", "1")
            if int(shown) < least:
                wrong.append((least, shown))

    readers = [Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    start.wait()
    for move in range(2, moves + 1):
        shelf.set_tags("a@1", {"move": str(move)})
        acknowledged[0] = move
    for reader in readers:
        reader.join()
    assert wrong == []


def test_after_many_events_everything_counts_as_changed(shelf: Registry) -> None:
    freshness = Freshness(shelf.catalog)
    freshness.catch_up()
    begun = freshness.now
    with shelf.catalog.writing() as writer:
        for number in range(1100):
            version = writer.resolve(shelf.reference("b@1"))
            writer.set_tags(version, {"k": str(number)})
    freshness.catch_up()
    assert freshness.now.history == begun.history + 1
    assert not freshness.holds(begun, "team/a")
