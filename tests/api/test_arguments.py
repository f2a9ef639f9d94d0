"""Whatever is sent for an argument: it is refused, and nothing breaks; not now, and not when somebody reads it later."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.routes.catalog import QUESTIONS
from registry.api.routes.transactions import STEPS
from registry.api.settings import Settings
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.names import AliasName
from registry.errors import InvalidInputError
from registry.remote import asks
from registry.remote.answers import read_error
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter, lora_tensors

JSON = {"Content-Type": "application/json"}
DIGEST = "sha256:" + "0" * 64
TOKEN = {"id": "zzzzzzzzzz", "name": "x", "hash": "0" * 64, "actions": ["read"], "namespaces": ["b/*"], "expires_at": None}
#: For each name of an argument, what it may be.
GOOD: dict[str, Any] = {
    "adapter": "b/open", "version": "b/open@1", "reference": "b/open@1", "digest": DIGEST, "limit": 5, "below": 9, "after": 0,
    "query": {}, "alias": "zz", "name": "x/y", "revision": "main", "namespace": "b", "token_id": "0000000000", "to": 1,
    "expected": None, "gate": {"against": None, "conditions": {"acc>=0.1": ["it is"]}}, "tags": {"k": "w"}, "keys": ["k"],
    "reason": "a test", "evaluations": [{"metric": "acc", "value": 0.5}], "raw": None, "manifest": "{}", "note": None,
    "fingerprint": None, "weights_fingerprint": None, "findings": [], "base": {"id": {"id": "x/y"}, "digest": DIGEST},
    "canonical": "z/w", "private": True, "token": TOKEN,
}  # fmt: skip
INSIDE: dict[str, dict[str, Any]] = {
    "query": {
        "text": "a", "base": "x/y", "ranks": [1, 9], "targets": ["q"], "peft_type": "LORA", "task_type": "CAUSAL_LM",
        "tags": [["k", "v"]], "alias": "zz", "metrics": [["acc", None, ">=", 0.1]], "sort": "acc", "reverse": False,
        "limit": 5, "after": "b/open@1", "all_versions": True, "namespace": "b", "visible": None,
    },
    "evaluations": {
        "metric": "q", "value": 1.0, "task": "t", "suite": "s", "split": "x", "filter": "f", "stderr": 0.1, "n": 5,
        "higher_is_better": True, "source": "s", "at": "2026-01-01T00:00:00Z",
    },
    "findings": {"rule": "r", "severity": "info", "message": "m", "where": None, "fix": None},
    "token": TOKEN,
    "gate": {"against": "b/open@1", "conditions": {}},
    "base": {"id": {"id": "x/y"}, "digest": DIGEST},
}  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400])
    | st.floats()
    | st.sampled_from(["", "::", "b/open", "b/open@1", "\x00", "\x1b[31m", "\ud800", "acc/", "x" * 100_000, DIGEST])
    | st.text(st.characters(), max_size=8)
)
ODD = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
DEEP: Any = json.loads("[" * 200 + "]" * 200)


def of(takes: Any) -> dict[str, Any]:
    return {name: GOOD[name] for name in takes.model_fields}


@st.composite
def given_to(draw: Any, takes: Any) -> dict[str, Any]:
    """Right, but for one argument, or one thing inside it."""
    names = [*takes.model_fields, "other"]
    name = draw(st.sampled_from(names))
    odd = draw(ODD | st.just(DEEP))
    inside = INSIDE.get(name)
    if inside is not None and draw(st.booleans()):
        key = draw(st.sampled_from([*inside, "other"]))
        document = {**inside, key: odd}
        odd = [document] if name in ("evaluations", "findings") else document
    return {**of(takes), name: odd}


@pytest.fixture
def client(tmp_path: Path, write_adapter: WriteAdapter) -> TestClient:
    shelf = connect(tmp_path / "store")
    for value in (0.25, 0.75):
        shelf.push(write_adapter(f"b{value}", lora_tensors(value=value)), name="b/open", tags={"k": "v"}, evaluations=["acc=0.5"])
    text, kept = new_token("admin", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
    with shelf.catalog.writing() as writer:
        writer.add_token(kept)
    app = create_app(Settings(tmp_path / "store", pushes_per_minute=10_000_000))
    headers = {**JSON, "Authorization": f"Bearer {text}"}
    return TestClient(app, base_url="http://localhost", headers=headers, raise_server_exceptions=False)


#: Steps that would take away what the others are about are tried and taken back.
FINAL = ("delete", "remove_adapter", "rename_adapter", "revoke_token", "add_token")


def transaction(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"steps": [{**given, "do": name}], "commit": name not in FINAL}


@pytest.mark.slow
def test_no_argument_is_more_than_refused(client: TestClient) -> None:
    """Neither when it is sent, nor for whoever reads afterwards."""
    wrong: list[Any] = []
    statuses: set[int] = set()

    def ask(path: str, document: Any) -> None:
        answer = client.post(path, content=json.dumps(document))
        statuses.add(answer.status_code)
        if answer.status_code >= 500:
            wrong.append((path, str(document)[:300], answer.status_code))

    def try_all(takes: Any, path: str, document: Callable[[dict[str, Any]], Any]) -> None:
        @given(odd=given_to(takes))
        @settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def once(odd: dict[str, Any]) -> None:
            ask(path, document(odd))

        ask(path, document(of(takes)))
        once()

    for name, question in QUESTIONS.items():
        try_all(question.takes, f"/v1/catalog/{name}", dict)
    for name, step in STEPS.items():
        try_all(step.takes, "/v1/transactions", partial(transaction, name))
    for path in ("/v1/events?limit=500", "/v1/adapters", "/v1/adapters?sort=acc", "/v1/adapters/b/open/versions", "/v1/tokens",
                 "/v1/adapters/b/open/versions/1", "/v1/adapters/b/open/versions/1/evaluations", "/v1/best?by=acc", "/v1/bases",
                 "/v1/compare?ref=b/open@1&ref=b/open@2", "/v1/resolve/b/open", "/api/models/b/open"):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert wrong == []
    assert {200, 400} <= statuses


def test_both_sides_know_the_same_questions_and_steps() -> None:
    assert {ask.name for ask in vars(asks).values() if isinstance(ask, asks.Ask)} == QUESTIONS.keys() | STEPS.keys()


def test_what_is_right_is_taken(client: TestClient) -> None:
    """So that the one above is about arguments."""
    taken = {name for name, question in QUESTIONS.items() if client.post(f"/v1/catalog/{name}", json=of(question.takes)).is_success}
    assert set(QUESTIONS) - taken == {"alias_history"}  # there was none
    done = {
        name
        for name, step in STEPS.items()
        if client.post("/v1/transactions", json={"steps": [{"do": name, **of(step.takes)}], "commit": False}).is_success
    }
    assert set(STEPS) - done == {"add_version", "add_base", "revoke_token", "rename_adapter"}, done


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter, anonymous_read=True) as found:
        yield found


def step(here: Site, do: str, who: str = "bob", **arguments: Any) -> Any:
    return here.ask("POST", "/v1/transactions", who, {"steps": [{"do": do, **arguments}], "commit": True})


def test_a_gate_that_nobody_could_read_is_not_kept(here: Site) -> None:
    move = {"adapter": "b/open", "alias": "x", "to": 1}
    for gate in (
        {"against": "::", "conditions": {}},
        {"against": "::"},
        {"against": None, "conditions": {}, "more": 1},
        {"against": None, "conditions": {"acc": "sentence"}},
        {"against": None, "conditions": {"acc": ["x" * 2001]}},
        {"against": None, "conditions": {f"acc{i}": ["x" * 2000] for i in range(200)}},
        "open",
        5,
    ):
        assert step(here, "move_alias", **move, gate=gate).status == 400, gate
    kept = {"against": "b/open@2", "conditions": {"acc>=0.1": ["it is 0.5"]}}
    assert step(here, "move_alias", **move, gate=kept).status == 200
    items = here.ask("GET", "/v1/events?limit=500", "bob").json["items"]
    assert items[-1]["facts"]["gate"] == kept


@pytest.mark.parametrize("gate", [{"against": "::"}, {"against": 5, "conditions": {}}, "open", {"against": "::", "conditions": {}}])
def test_an_entry_that_cannot_be_read_is_told_without_it(here: Site, gate: Any) -> None:
    """Older servers kept it."""
    name = here.shelf.adapter("b/open")
    with here.shelf.catalog.writing() as writer:
        writer.move_alias(name, AliasName("x"), 1, gate=gate)  # type: ignore[arg-type]
    for who in ("bob", "root", None):
        last = here.ask("GET", "/v1/events?limit=500", who).json["items"][-1]
        assert (last["action"], "::" in json.dumps(last)) == ("alias", False)
        assert here.ask("POST", "/v1/catalog/audit", who, {"adapter": "b/open"}).status == 200


def test_a_lineage_that_cannot_be_read_is_there_by_its_digest(here: Site, write_adapter: WriteAdapter) -> None:
    from registry.api.callers import Caller, shown_parents

    caller = Caller(here.shelf, "nobody", None, open=False, anonymous_read=True)  # type: ignore[arg-type]  # it is an embedded one
    edges = [{"parent": DIGEST, "reference": text} for text in ("::", "\n", 5, None, "a/secret@1", "b/open@1")]
    assert [edge["reference"] for edge in shown_parents(caller, edges)] == [None] * 5 + ["b/open@1"]


def test_numbers_beyond_what_can_be_numbered_are_refused(here: Site) -> None:
    big = 2**63
    adapter = "/v1/adapters/b/open"
    assert here.ask("GET", f"/v1/events?after={big}", "bob").status == 400
    assert here.ask("GET", "/v1/events", "bob", headers={"Last-Event-ID": str(big)}).status == 400
    assert here.ask("GET", f"{adapter}/versions?before={big}", "bob").status == 400
    assert here.ask("PUT", f"{adapter}/aliases/x", "bob", {"version": big}).status == 400
    for score in (b'{"metric":"m","value":NaN}', b'{"metric":"m","value":1e999}', b'{"metric":"m","value":1,"stderr":1e999}'):
        body = b'{"evaluations":[' + score + b"]}"
        assert here.ask("POST", f"{adapter}/versions/1/evaluations", "bob", body, JSON).status == 400
    for noise in (b"NaN", b"1e999"):
        body = b'{"version":1,"minimum":["acc>=0.1"],"noise":' + noise + b"}"
        assert here.ask("POST", f"{adapter}/aliases/x/promote", "bob", body, JSON).status == 400


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\\uDFFF x"', b'"\xed\xa0\x80"', b'"\xff"', '"x"'.encode("utf-16")])
def test_half_a_character_is_refused_wherever_it_stands(here: Site, text: bytes) -> None:
    for path, body in (
        ("/v1/resolve", b'{"names":[%s]}'),
        ("/v1/check", b'{"reference":"b/open","engine":%s}'),
        ("/v1/catalog/resolve", b'{"reference":%s}'),
        ("/v1/transactions", b'{"steps":[{"do":"yank","version":"b/open@1","reason":%s}],"commit":true}'),
        ("/v1/transactions", b'{"steps":[{"do":"aliases","adapter":"b/open",%s:1}],"commit":true}'),
        ("/v1/adapters/b/open/aliases/x/promote", b'{"version":1,"minimum":[%s]}'),
    ):
        answer = here.ask("POST", path, "bob", body % text, JSON)
        assert (answer.status, answer.code) == (400, "not-text"), path
    whole = here.ask("POST", "/v1/catalog/find_base", "bob", b'{"name":"\\ud83d\\ude00 \\\\ud800"}', JSON)
    assert (whole.status, whole.json) == (200, {"answer": None})


@pytest.mark.parametrize("reason", ["", "\x1b[31m", "x" * 1001, "\x00"])
def test_a_reason_has_the_same_bounds_everywhere(here: Site, reason: str) -> None:
    with here.unchanged():
        assert step(here, "yank", version="b/open@1", reason=reason).status == 400
        assert here.ask("PUT", "/v1/adapters/b/open/versions/1/yank", "bob", {"reason": reason}).status == 400


def test_a_token_is_made_once_and_ends_at_a_time(here: Site) -> None:
    for end in ("zzz", "", "2030-01-01", "2030-13-01T00:00:00Z", "2030-01-01T00:00:00+02:00", 5):
        assert step(here, "add_token", "root", token={**TOKEN, "expires_at": end}).status == 400, end
    assert step(here, "add_token", "root", token={**TOKEN, "expires_at": "2030-01-01T00:00:00.5Z"}).status == 200
    again = step(here, "add_token", "root", token=TOKEN)
    assert (again.status, again.code) == (409, "token-exists")
    assert step(here, "add_token", "root", token={**TOKEN, "id": here.tokens["alice"][4:14]}).code == "token-exists"


def test_what_nobody_foresaw_is_answered_without_its_text(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: Any, _name: Any) -> None:
        raise LookupError("/secret/path")

    monkeypatch.setattr("registry.catalog.reads.SqlReads.find_adapter", broken)
    with caplog.at_level(logging.ERROR, "adapters.server"):
        answer = client.post("/v1/catalog/find_adapter", json={"adapter": "b/open"}, headers={"X-Request-ID": "the-one"})
    document = answer.json()
    assert (answer.status_code, document["code"]) == (500, "internal-error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "the-one"
    assert "the-one failed: LookupError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("POST", "/v1/store/gc", {"grace": 2e9}, "grace in the body: expected "),
        ("POST", "/v1/transactions", {"steps": [], "commit": True}, "steps in the body: expected "),
        ("POST", "/v1/transactions", {"steps": [{"do": "yank"}]}, "commit in the body: it is missing"),
        ("POST", "/v1/transactions", b"{", "the body: it is no JSON"),
        ("POST", "/v1/transactions", b"5", "the body: expected an object"),
        ("POST", "/v1/resolve", {"names": ["b/open"], "nmaes": 1}, "nmaes in the body: nothing has that name"),
        ("POST", "/v1/catalog/events", {"after": "x", "limit": 5}, "after in the arguments of events: expected "),
        ("GET", "/v1/adapters?limit=0", None, "limit in the query: expected "),
        ("GET", "/v1/adapters/b/open/versions/0", None, "number in the path: expected "),
    ],
)
def test_what_cannot_be_read_is_refused_as_everything_else_is(here: Site, method: str, path: str, body: Any, where: str) -> None:
    """By the oracle of the client: it reads the answer as the error that the same mistake is without a server."""
    answer = here.ask(method, path, "root", body, JSON)
    error = read_error(answer.json)
    assert (answer.status, type(error), error.exit_code, error.code) == (400, InvalidInputError, 3, "invalid-input")
    assert error.message.startswith(where)
    assert "Input should" not in error.message
    assert error.hint is None
