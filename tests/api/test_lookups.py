"""What look-ups cost: each name once, refusals too, and never more than a request is worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.api import documents
from registry.api.routes import resolve
from registry.catalog import resolve as names
from registry.connect import connect
from registry.domain.names import AdapterName
from registry.errors import NotFoundError
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter, anonymous_read=True) as found:
        found.shelf.push(write_adapter("biased", lora_tensors(value=0.3), bias="all"), name="b/biased")
        yield found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was looked up and not remembered."""
    found: list[Any] = []
    real = documents.resolved

    def counted(adapter: Any, wanted: Any, **more: Any) -> Any:
        found.append(wanted)
        return real(adapter, wanted, **more)

    monkeypatch.setattr(documents, "resolved", counted)
    return found


def many(here: Site, *texts: str, host: str = "localhost", **more: str) -> Any:
    return here.ask("POST", "/v1/resolve", None, {"names": texts, **more}, {"Host": host})


def test_a_name_is_answered_once_however_often_it_is_asked_for(here: Site) -> None:
    items = many(here, "b/open", "b/biased", "b/open", "b/open@1").json["items"]
    assert [item["name"] for item in items] == ["b/open", "b/biased", "b/open@1"]


def test_an_answer_to_many_names_has_an_end(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_LONGEST", 1500)
    assert many(here, "b/open").status == 200
    refused = many(here, "b/open", "b/open@1", "b/open@2")
    assert (refused.status, refused.code) == (413, "too-large")
    assert "fewer" in refused.json["hint"]


def test_what_takes_too_long_is_to_be_asked_for_again(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_SECONDS", -1.0)
    (item,) = many(here, "b/open").json["items"]
    assert (item["problem"]["status"], item["problem"]["code"]) == (503, "unavailable")


def test_what_is_empty_is_not_left_away(here: Site) -> None:
    """A variable of a script that nobody set lets nobody through."""
    for asked in ({"engine": ""}, {"base": ""}, {"engine": "", "base": ""}):
        (item,) = many(here, "b/open", **asked).json["items"]
        assert item["problem"]["status"] == 400, asked
        assert here.ask("POST", "/v1/check", None, {"reference": "b/open@1", **asked}).status == 400, asked
        words = "&".join(f"{key}=" for key in asked)
        assert here.ask("GET", f"/v1/resolve/b/open?{words}", None).status == 400, asked
    assert here.ask("GET", "/v1/best?by=acc&base=", None).status == 400


def test_a_document_is_made_once_for_all_addresses_of_the_server(here: Site, made: list[Any]) -> None:
    for host in ("one.example", "two.example:81"):
        (item,) = many(here, "b/open", host=host).json["items"]
        assert all(file["url"].startswith(f"http://{host}/v1/blobs/sha256:") for file in item["found"]["files"])
        assert here.ask("GET", "/v1/resolve/b/open", None, None, {"Host": host}).json == item["found"]
    assert len(made) == 1


def test_what_is_refused_is_remembered_until_something_happens(
    here: Site, made: list[Any], write_adapter: WriteAdapter
) -> None:
    def ask() -> set[str]:
        (item,) = many(here, "b/biased", engine="vllm").json["items"]
        alone = here.ask("GET", "/v1/resolve/b/biased?engine=vllm", None)
        assert (alone.status, alone.code, alone.json["detail"]) == (
            item["problem"]["status"],
            item["problem"]["code"],
            item["problem"]["detail"],
        )
        assert alone.json["findings"]
        return {alone.code or ""}

    before = ask()
    assert ask() == before
    assert len(made) == 1
    here.shelf.push(write_adapter("fitting", lora_tensors(value=0.4)), name="b/biased")
    assert here.ask("GET", "/v1/resolve/b/biased?engine=vllm", None).json["version"] == 2
    assert len(made) == 2


def test_what_is_kept_is_bounded_by_its_bytes(here: Site, made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_KEPT_BYTES", 5000)
    for _ in range(2):
        many(here, "b/open", "b/open@1", "b/open@2", "b/biased", "b/biased@1")
    assert len(made) == 10  # only two or three fit, so that none is there when it is asked for again


def test_a_server_looks_for_no_similar_name(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "get_close_matches", lambda *_args, **_more: pytest.fail("it may not tell it"))
    assert here.ask("GET", "/v1/resolve/b/opne", "bob").code == "unknown-adapter"
    assert here.ask("POST", "/v1/resolve", "bob", {"names": ["b/opne"]}).json["items"][0]["problem"]["status"] == 404


def test_the_nearest_name_is_found_among_many(tmp_path: Path) -> None:
    shelf = connect(tmp_path)
    with shelf.catalog.writing() as writer:
        for number in range(300):
            writer.create_adapter(AdapterName.parse(f"team/support-{number:03}"), private=False)
        writer.create_adapter(AdapterName.parse("team/translate-de"), private=False)
    for wrong, right in (("team/translate-ed", "team/translate-de"), ("team/support-1500", "team/support-150")):
        with pytest.raises(NotFoundError) as caught:
            shelf.show(wrong)
        assert caught.value.hint == f"did you mean {right}?"
