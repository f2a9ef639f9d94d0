"""What a caller with a token of their own cannot do to others: spoil what all read, learn what is hidden, lock out, or make the
server fail by odd values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.api.routes.catalog import QUESTIONS, STEPS
from registry.domain.digest import Digest
from registry.domain.names import AliasName
from registry.domain.query import VersionQuery
from registry.remote import values
from tests.api.sites import Answer, Site, site
from tests.conftest import CONFIG, WriteAdapter, lora_tensors, safetensors_bytes


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter, anonymous_read=True) as found:
        yield found


def transact(here: Site, who: str | None, *steps: dict[str, Any], commit: bool = True) -> Answer:
    return here.ask("POST", "/v1/transactions", who, {"steps": list(steps), "commit": commit})


MOVE = {"do": "move_alias", "adapter": "b/open", "alias": "x", "to": 1}
GATES = [
    {"against": "::", "conditions": {}},
    {"against": "a/secret@1"},
    {"against": None, "conditions": {"acc>=0": "met"}},
    {"against": None, "conditions": {}, "more": 1},
    {"against": None, "conditions": {"x": ["y" * (1 << 20)]}},
    {"against": None, "conditions": {str(n): [] for n in range(201)}},
    [],
    "x",
]


@pytest.mark.parametrize("gate", GATES)
def test_what_a_gate_found_has_its_shape(here: Site, gate: object) -> None:
    with here.unchanged():
        assert transact(here, "bob", {**MOVE, "gate": gate}).status == 400


def test_a_gate_that_was_put_on_record_otherwise_breaks_nobodys_events(here: Site) -> None:
    """As an earlier version let it be."""
    with here.shelf.catalog.writing() as writer:
        writer.move_alias(here.shelf.adapter("b/open"), AliasName("x"), 1, gate={"against": "::"})
    for who in ("alice", "bob", "root", None):
        answer = here.ask("GET", "/v1/events", who)
        assert answer.status == 200
        assert [event["facts"]["gate"] for event in answer.json["items"] if "gate" in event["facts"]] == [None]


@pytest.fixture
def twin(here: Site, write_adapter: WriteAdapter, tmp_path: Path) -> Digest:
    """``bob`` has the very content of the hidden ``a/secret``, which was there first."""
    here.shelf.push(tmp_path / "secret", name="b/twin", evaluations=["acc=0.9"])
    return here.shelf.show("b/twin@1").version.digest


def test_a_digest_means_what_the_caller_may_read(here: Site, twin: Digest, write_adapter: WriteAdapter) -> None:
    body = {"version": 1, "no_regression": ["acc"], "against": twin}
    answer = here.ask("POST", "/v1/adapters/b/twin/aliases/production/promote", "bob", body)
    assert answer.status == 200
    assert b"secret" not in answer.body
    assert b"0.77" not in answer.body
    files = []
    for path in write_adapter("c", lora_tensors(value=3)).iterdir():
        data = path.read_bytes()
        here.ask("PUT", f"/v1/blobs/{Digest.of(data)}", "bob", data)
        files.append({"path": path.name, "digest": Digest.of(data)})
    made = here.ask("POST", "/v1/adapters/b/c/versions", "bob", {"files": files, "parents": [twin]})
    assert made.status == 201
    assert [edge.reference for edge in here.shelf.show("b/c@1").manifest.lineage] == ["b/twin@1"]


def test_the_log_of_an_adapter_names_nothing_hidden(here: Site) -> None:
    with here.shelf.catalog.writing() as writer:
        gate = {"against": "a/secret@1", "conditions": {}}
        writer.move_alias(here.shelf.adapter("b/open"), AliasName("x"), 1, gate=gate)
    for who, shown in (("bob", None), (None, None), ("root", "a/secret@1")):
        found = here.ask("POST", "/v1/catalog/audit", who, {"adapter": "b/open", "limit": 10}).json["answer"]
        assert [entry["body"]["gate"]["against"] for entry in found if "gate" in entry["body"]] == [shown]


@pytest.mark.parametrize("who", [None, "reader"])
def test_who_only_reads_makes_no_writer_wait(here: Site, who: str | None) -> None:
    if who:
        made = here.ask("POST", "/v1/tokens", "root", {"name": "r", "actions": ["read"], "namespaces": ["b/*"]})
        here.tokens["reader"] = made.json["text"]  # type: ignore[index]
    answer = transact(here, who, {"do": "aliases", "adapter": "b/open"}, commit=False)
    assert (answer.status, answer.code) == ((401, "unauthenticated") if who is None else (403, "forbidden"))


def test_nobody_locks_out_the_owner_of_a_token(here: Site) -> None:
    right = here.tokens["alice"]
    wrong = right[:15] + "A" * 43 + "_" + "0" * 6
    for _ in range(100):
        here.ask("GET", "/v1/adapters/a/secret", headers={"Authorization": f"Bearer {wrong}"})
    assert here.ask("GET", "/v1/adapters/a/secret", "alice").status == 200


def test_a_name_that_is_asked_for_often_is_looked_up_once(here: Site) -> None:
    answer = here.ask("POST", "/v1/resolve", "bob", {"names": ["b/open", "b/none", "b/open", "b/none"]})
    assert [("found" in item, item.get("problem", {}).get("code")) for item in answer.json["items"]] == [
        (True, None),
        (False, "unknown-adapter"),
    ]


def test_documents_say_the_address_they_were_asked_at(here: Site) -> None:
    for host in ("one.example", 'two.example:8000"\\'):
        answer = here.ask("POST", "/v1/resolve", "bob", {"names": ["b/open"]}, {"Host": host})
        if answer.status == 200:
            files = answer.json["items"][0]["found"]["files"]
            assert all(file["url"].startswith(f"http://{host}/") for file in files)


JSON = {"Content-Type": "application/json"}
ODD: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["b/open", "b/open@1", "sha256:" + "0" * 64, "production", 1 << 63, "\x00", "a" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
NAMES = ("adapter", "reference", "version", "digest", "limit", "below", "after", "name", "revision", "query", "alias", "namespace",
         "to", "expected", "gate", "reason", "tags", "keys", "evaluations", "raw", "manifest", "note", "findings", "fingerprint",
         "weights_fingerprint", "token", "token_id", "private", "base", "canonical")  # fmt: skip
GIVEN = st.dictionaries(st.sampled_from(NAMES), ODD, max_size=8)
RIGHT = {"adapter": "b/open", "reference": "b/open@1", "version": "b/open@1", "alias": "x", "limit": 10}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("strict")

    def write(name: str, tensors: Any = None) -> Path:
        directory = folder / name
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
        (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(lora_tensors() if tensors is None else tensors))
        return directory

    with site(folder, write) as found:
        yield found


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(sorted(QUESTIONS)), GIVEN, st.booleans())
def test_no_question_makes_the_server_fail(shared: Site, question: str, odd: dict[str, Any], helped: bool) -> None:
    query = {**values.query_document(VersionQuery()), **odd}
    given = {**RIGHT, "query": query, **odd} if helped else odd
    answer = shared.ask("POST", f"/v1/catalog/{question}", "root", encoded(given), JSON)
    assert answer.status < 500, (given, answer)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(sorted(STEPS)), GIVEN, st.booleans(), st.booleans())
def test_no_step_makes_the_server_fail(shared: Site, step: str, odd: dict[str, Any], helped: bool, commit: bool) -> None:
    given = {**({**RIGHT, **odd} if helped else odd), "do": step}
    answer = shared.ask("POST", "/v1/transactions", "root", encoded({"steps": [given], "commit": commit}), JSON)
    assert answer.status < 500, (given, answer)


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()
