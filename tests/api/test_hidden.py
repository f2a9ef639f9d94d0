"""What a caller may not read is nowhere in what they are told, and what they may read is not lost beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.routes import events, finding
from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.operations.evaluate import measured
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(events, "_LOOK", 0.02)
    with site(tmp_path, write_adapter) as found:
        yield found


def client_of(shelf: Registry, place: Path, *patterns: str) -> TestClient:
    text, kept = new_token("reader", [Action.READ], [NamespacePattern(each) for each in patterns], expires_at=None)
    with shelf.catalog.writing() as writer:
        writer.add_token(kept)
    headers = {"Authorization": f"Bearer {text}"}
    return TestClient(create_app(Settings(place)), base_url="http://localhost", headers=headers)


def test_where_an_adapter_went_is_told_only_to_those_who_may_go_there(here: Site) -> None:
    with here.shelf.catalog.writing() as writer:
        writer.rename_adapter(here.shelf.adapter("b/open"), here.shelf.adapter("a/taken-over"))
    renamed = [item for item in here.ask("GET", "/v1/events?limit=500", "bob").json["items"] if item["action"] == "rename"]
    assert [item["facts"]["to"] for item in renamed] == [None]
    told = [item for item in here.ask("GET", "/v1/events?limit=500", "root").json["items"] if item["action"] == "rename"]
    assert [item["facts"]["to"] for item in told] == ["a/taken-over"]


def test_content_that_lies_in_a_hidden_adapter_too_is_found_where_one_may_read_it(here: Site, write_adapter: WriteAdapter) -> None:
    here.shelf.push(write_adapter("same"), name="b/same", evaluations=["acc=0.5"])
    digest = here.shelf.show("b/same@1").version.digest
    assert here.shelf.show("a/secret@1").version.digest == digest
    asked = {"reference": digest, "engine": "vllm"}
    for who, name in (("bob", "b/same"), ("alice", "a/secret")):
        compared = here.ask("GET", f"/v1/compare?ref={digest}&ref={digest}", who)
        assert (compared.status, json.dumps(compared.json).count(name) > 0) == (200, True)
        assert here.ask("POST", "/v1/check", who, asked).status == 200
    other = here.shelf.show("b/open@1").version.digest
    assert here.ask("GET", f"/v1/compare?ref={other}", "alice").code == "unknown-version"


KEYS = {"name": ["a/s", 1], "created": ["2026-01-01"], "rank": [4], "bytes": [1], "parameters": [1], "acc": [0.5]}


@pytest.mark.parametrize("sort", KEYS)
def test_a_cursor_that_somebody_made_up_tells_nothing_of_what_is_hidden(here: Site, sort: str, write_adapter: WriteAdapter) -> None:
    """Nor of what was, with as many keys as pages give and with one too few."""
    here.shelf.push(write_adapter("gone"), name="a/gone")
    with here.shelf.catalog.writing() as writer:
        writer.remove_adapter(here.shelf.adapter("a/gone"), "because")
    for keys in (KEYS[sort], [*KEYS[sort], 1]):
        told = []
        for reference in ("a/secret@1", "a/secret@77", "a/none@1", "a/gone@1", "a/gone@77"):
            text = base64.urlsafe_b64encode(json.dumps([reference, *keys]).encode()).decode().rstrip("=")
            page = here.ask("GET", f"/v1/adapters?sort={sort}&cursor={text}", "bob")
            query = {"sort": sort, "after": {"reference": reference, "keys": keys[:2]}}
            found = here.ask("POST", "/v1/catalog/search", "bob", {"query": query})
            said = (page.body + found.body).replace(text.encode(), b"").replace(reference.encode(), b"")
            told.append((page.status, found.status, said))
        assert len(set(told)) == 1


def test_the_audit_of_one_adapter(here: Site) -> None:
    items = here.ask("GET", "/v1/audit?adapter=b/open", "root").json["items"]
    assert {item["adapter"] for item in items} == {"b/open"}
    assert [item["sequence"] for item in items] == sorted((item["sequence"] for item in items), reverse=True)
    assert here.ask("GET", "/v1/audit?adapter=b/none", "root").code == "unknown-adapter"
    assert here.ask("GET", "/v1/audit?adapter=b/open", "bob").code == "forbidden"


def test_many_names_without_a_token_follow_what_is_hidden_and_shown(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """Also from what is kept of the look-up before."""
    with site(tmp_path, write_adapter, anonymous_read=True) as here:
        names = {"names": ["b/open", "b/none"]}
        for private in (False, True, False, True):
            with here.shelf.catalog.writing() as writer:
                writer.set_private(here.shelf.adapter("b/open"), private=private)
            for _ in range(3):
                there, nowhere = here.ask("POST", "/v1/resolve", None, names).json["items"]
                assert ("found" in there) is not private
                if private:
                    hidden = json.dumps(there["problem"]).replace("b/open", "b/none")
                    assert json.loads(hidden) == nowhere["problem"]
                assert "found" in here.ask("POST", "/v1/resolve", "bob", names).json["items"][0]


def test_the_best_that_an_engine_serves_is_found_however_many_are_better(
    tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "_PAGE", 2)
    shelf = connect(tmp_path / "registry")
    for number in range(5):
        folder = write_adapter(f"no{number}", lora_tensors(value=float(number + 1)), bias="all")
        shelf.push(folder, name=f"team/no{number}", evaluations=[f"acc={0.9 + number / 100}"])
    shelf.push(write_adapter("yes", lora_tensors(value=9.0)), name="team/yes", evaluations=["acc=0.5"])
    client = client_of(shelf, tmp_path / "registry", "team/*")
    assert client.get("/v1/best?by=acc").json()["reference"] == "team/no4@1"
    assert client.get("/v1/best?by=acc&engine=vllm").json()["reference"] == "team/yes@1"
    monkeypatch.setattr(finding, "_TRIED", 4)
    shelf.set_tags("team/yes@1", {"made": "again"})
    assert client.get("/v1/best?by=acc&engine=vllm").json()["code"] == "none-fits"


def test_a_stream_of_an_open_server_ends_when_it_gets_its_first_token(
    tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listened while everybody could do everything is nobody from then on."""
    monkeypatch.setattr(events, "_LOOK", 0.02)
    with site(tmp_path, write_adapter, with_tokens=False) as here:
        newest = here.shelf.log(limit=1)[0].sequence
        connection = HTTPConnection("127.0.0.1", here.port, timeout=10)
        connection.request("GET", f"/v1/events?after={newest}", headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        here.shelf.set_tags("a/secret@1", {"early": "1"})
        while not answer.readline().startswith(b"data: "):
            pass
        _, kept = new_token("first", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
        with here.shelf.catalog.writing() as writer:
            writer.add_token(kept)
        here.shelf.set_tags("a/secret@1", {"late": "1"})
        rest = answer.read()
        connection.close()
    assert b"late" not in rest
    assert b"token" not in rest


def test_a_digest_means_the_readable_version_also_where_it_is_held_against_or_made_from(
    here: Site, write_adapter: WriteAdapter
) -> None:
    """The same bytes were stored first in an adapter that bob may not know of."""
    here.shelf.push(write_adapter("same"), name="b/same", evaluations=["acc=0.5"])
    here.shelf.add_evaluations("b/open@1", measured("acc=0.6"))
    digest = here.shelf.show("b/same@1").version.digest
    gate = {"version": 1, "no_regression": ["acc"], "against": digest}
    promoted = here.ask("POST", "/v1/adapters/b/open/aliases/prod/promote", "bob", gate)
    assert (promoted.status, promoted.json["against"]) == (200, "b/same@1")  # against 0.77 it would not hold
    sent = here.ask("GET", "/v1/resolve/b/open?version=2", "bob").json["files"]
    files = [{"path": each["path"], "digest": each["digest"]} for each in sent]
    child = here.ask("POST", "/v1/adapters/b/child/versions", "bob", {"files": files, "parents": [f"{digest}*0.5"]})
    assert child.status == 201, child
    edges = here.shelf.show("b/child").manifest.lineage
    assert [(edge.reference, edge.weight) for edge in edges] == [("b/same@1", 0.5)]
    other = here.shelf.show("b/open@1").version.digest
    refused = here.ask("POST", "/v1/adapters/a/secret/versions", "alice", {"files": files, "parents": [other]})
    assert refused.code == "unknown-version"
    for do, more in {"set_tags": {"tags": {"x": "y"}}, "evaluations": {}, "yank": {"reason": "x"}}.items():
        steps = [{"do": do, "version": digest, **more}, {"do": "resolve", "reference": digest}]
        answer = here.ask("POST", "/v1/transactions", "bob", {"steps": steps, "commit": True})
        assert (answer.status, answer.json["results"][1]["adapter"]) == (200, "b/same"), answer
    assert dict(here.shelf.show("b/same@1").version.tags) == {"x": "y"}
    assert not here.shelf.show("a/secret@1").version.tags


def test_the_audit_of_an_adapter_tells_what_its_events_tell(here: Site, write_adapter: WriteAdapter) -> None:
    here.shelf.add_evaluations("b/open@1", measured("acc=0.9"))
    here.shelf.promote("b/open@1", "production", against="a/secret@1", no_regression=["acc"])
    here.shelf.push(write_adapter("m", lora_tensors(value=9.0)), name="b/mover")
    with here.shelf.catalog.writing() as writer:
        writer.rename_adapter(here.shelf.adapter("b/mover"), here.shelf.adapter("a/secret-project"))
    items = here.ask("GET", "/v1/events?limit=500", "bob").json["items"]
    answers = [here.ask("POST", "/v1/catalog/audit", "bob", {"adapter": name}) for name in ("b/open", "b/mover")]
    entries = [entry for answer in answers if answer.status == 200 for entry in answer.json["answer"]]
    told = {item["sequence"]: item["facts"] for item in items}
    assert [entry["action"] for entry in entries if "gate" in entry["body"]] == ["alias"]
    for entry in entries:
        assert entry["body"] == told[entry["sequence"]]
        assert "secret" not in json.dumps(entry)
        assert "0.77" not in json.dumps(entry)  # nor what was measured of it
    whole = here.ask("POST", "/v1/catalog/audit", "root", {"adapter": "b/open"}).body
    assert b"a/secret@1" in whole
    assert b"0.77" in whole
