"""The routes, each for what it is for, and what it does not give away."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.catalog.sql import SqlCatalog
from registry.connect import Registry, connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.digest import Digest
from registry.domain.names import MAX_LENGTH
from registry.domain.query import SORTS
from registry.errors import UnavailableError
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def shelf(tmp_path: Path, write_adapter: WriteAdapter) -> Registry:
    registry = connect(tmp_path / "registry", namespace="team")
    registry.push(write_adapter("a"), alias="production", evaluations=["acc=0.5"])
    registry.push(write_adapter("a2", lora_tensors(value=0.25)), name="a", evaluations=["acc=0.75"], parents=[("a@1", 0.5)])
    registry.push(write_adapter("b", lora_tensors(value=0.75)), name="secret/b", alias="production", evaluations=["acc=0.9"])
    with registry.catalog.writing() as writer:
        writer.set_private(registry.adapter("secret/b"), private=True)
    return registry


@pytest.fixture
def open_server(shelf: Registry, tmp_path: Path) -> TestClient:
    return TestClient(create_app(Settings(tmp_path / "registry")), base_url="http://localhost")


def as_reader(shelf: Registry, tmp_path: Path) -> TestClient:
    text, kept = new_token("reader", [Action.READ], [NamespacePattern("team/*")], expires_at=None)
    with shelf.catalog.writing() as writer:
        writer.add_token(kept)
    headers = {"Authorization": f"Bearer {text}"}
    return TestClient(create_app(Settings(tmp_path / "registry")), base_url="http://localhost", headers=headers)


def test_a_look_up_says_what_to_load(open_server: TestClient, shelf: Registry) -> None:
    found = open_server.get("/v1/resolve/team/a?alias=production").json()
    version = shelf.show("a@1")
    assert (found["reference"], found["digest"], found["rank"]) == ("team/a@1", version.version.digest, version.manifest.rank)
    assert found["commit"] == version.version.digest.hex[:40]
    assert {file["path"]: file["digest"] for file in found["files"]} == {e.path: e.digest for e in version.manifest.files}
    for file in found["files"]:
        data = open_server.get(file["url"]).content
        assert (len(data), Digest.of(data)) == (file["size"], file["digest"])
    assert open_server.get("/v1/resolve/team/a").json()["version"] == 2
    assert open_server.get("/v1/resolve/team/a?version=1").json()["version"] == 1
    assert open_server.get("/v1/resolve/team/a?version=1&alias=production").status_code == 400


def test_a_look_up_refuses_what_does_not_fit(open_server: TestClient, shelf: Registry) -> None:
    base = shelf.show("a@1").manifest.base_model.id
    assert open_server.get(f"/v1/resolve/team/a?alias=production&base={base}").status_code == 200
    wrong = open_server.get("/v1/resolve/team/a?alias=production&base=Org/Other")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "base-id")
    assert open_server.get("/v1/resolve/team/a?engine=no-such-engine").status_code == 400


def test_many_names_at_once(open_server: TestClient) -> None:
    names = ["team/a", "team/a@1", "team/a:production", "team/none", "not a name", "secret/b:production"]
    items = open_server.post("/v1/resolve", json={"names": names}).json()["items"]
    found = [item.get("found", {}).get("reference") for item in items]
    assert found == ["team/a@2", "team/a@1", "team/a@1", None, None, "secret/b@1"]
    assert [item["problem"]["code"] for item in items if "problem" in item] == ["unknown-adapter", "invalid-name"]
    assert open_server.post("/v1/resolve", json={"names": ["team/a"] * 1001}).status_code == 400


def test_the_best_is_the_best_that_fits(open_server: TestClient) -> None:
    found = open_server.get("/v1/best?by=acc").json()
    assert (found["reference"], found["score"]["value"]) == ("secret/b@1", 0.9)
    assert open_server.get("/v1/best?by=acc&namespace=team").json()["reference"] == "team/a@2"
    assert open_server.get("/v1/best?by=acc&base=Org/None").status_code == 404
    assert open_server.get("/v1/best").status_code == 400


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metric=acc", "secret/b@1"),
        ("metric=acc&by=acc", "secret/b@1"),
        ("metric=acc&metric=acc<0.8", "team/a@2"),
        ("by=acc&metric=acc<=0.6", "team/a@1"),
        ("metric=acc&by=f1", "no-metric"),
        ("metric=acc&metric=f1", "no-metric"),
        ("metric=acc>=0.1", "no-metric"),
        ("metric=rank", "no-metric"),
        ("by=rank", "no-metric"),
        ("metric=f1", "none-fits"),
        ("metric=", "invalid-name"),
    ],
)
def test_the_best_by_a_metric_that_either_name_says(open_server: TestClient, query: str, found: str) -> None:
    answer = open_server.get(f"/v1/best?{query}").json()
    assert answer.get("reference", answer.get("code")) == found


def test_scores_lineage_and_comparison(open_server: TestClient) -> None:
    made = open_server.post("/v1/adapters/team/a/versions/1/evaluations", json={"evaluations": [{"metric": "f1", "value": 0.25}]})
    assert made.json() == {"added": 1}
    scores = open_server.get("/v1/adapters/team/a/versions/1/evaluations").json()["items"]
    assert [(score["metric"], score["value"]) for score in scores] == [("acc", 0.5), ("f1", 0.25)]
    (parent,) = open_server.get("/v1/adapters/team/a/versions/2/lineage").json()["parents"]
    assert (parent["reference"], parent["weight"]) == ("team/a@1", 0.5)
    rows = open_server.get("/v1/compare?ref=team/a@1&ref=team/a@2").json()["rows"]
    assert rows[0]["values"] == [0.5, 0.75]


def test_a_version_from_blobs(open_server: TestClient, shelf: Registry, write_adapter: WriteAdapter) -> None:
    """Sent one by one, checked as a push is; the same again is the same version; nothing is made of what nobody sent."""
    folder = write_adapter("c", lora_tensors(value=2.0))
    files = [{"path": path.name, "digest": Digest.of(path.read_bytes())} for path in folder.iterdir()]
    refused = open_server.post("/v1/adapters/team/c/versions", json={"files": files})
    assert (refused.status_code, refused.json()["code"]) == (404, "not-uploaded")
    digests = [file["digest"] for file in files]
    assert set(open_server.post("/v1/blobs/missing", json={"digests": digests}).json()["missing"]) <= set(digests)
    for path in folder.iterdir():
        assert open_server.put(f"/v1/blobs/{Digest.of(path.read_bytes())}", content=path.read_bytes()).status_code in (200, 201)
    assert open_server.post("/v1/blobs/missing", json={"digests": digests}).json()["missing"] == []
    body = {"files": files, "aliases": ["staging"], "tags": {"k": "v"}, "evaluations": [{"metric": "acc", "value": 0.25}]}
    made = open_server.post("/v1/adapters/team/c/versions", json=body)
    assert (made.status_code, made.json()["reference"]) == (201, "team/c@1")
    again = open_server.post("/v1/adapters/team/c/versions", json={"files": files})
    assert (again.status_code, again.json()["created"]) == (200, False)
    shown = shelf.show("c:staging")
    assert (shown.version.tags, shown.evaluations[0].value) == ({"k": "v"}, 0.25)
    assert shelf.doctor(deep=True).problems == ()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\\b", "a//b", ".", "a/../../b", "\x00", "a\nb", ".git/config"])
def test_a_path_that_leaves_its_place_is_refused(open_server: TestClient, path: str, tmp_path: Path) -> None:
    digest = Digest.of(b"x")
    open_server.put(f"/v1/blobs/{digest}", content=b"x")
    answer = open_server.post("/v1/adapters/team/c/versions", json={"files": [{"path": path, "digest": digest}]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-path")
    assert list((tmp_path / "registry").glob("work/*")) == []


def test_what_an_adapter_or_a_caller_names_is_never_opened_on_the_servers_disk(
    open_server: TestClient, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    """A base that is a path, or an address: it is text. Watched: every file that is opened, every connection."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "config.json").write_text("{}")
    (trap / "model.safetensors").write_bytes(b"")
    for name in (str(trap), "http://169.254.169.254/latest", "file:///etc/passwd"):
        folder = write_adapter(f"base-{len(name)}", lora_tensors(value=float(len(name))))
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
        files = [{"path": each.name, "digest": Digest.of(each.read_bytes())} for each in folder.iterdir()]
        for each in folder.iterdir():
            open_server.put(f"/v1/blobs/{Digest.of(each.read_bytes())}", content=each.read_bytes())
        seen: list[str] = []
        watching = [True]

        def watch(event: str, arguments: tuple[Any, ...], seen: list[str] = seen, watching: list[bool] = watching) -> None:
            if watching and watching[0] and event in ("open", "socket.connect", "socket.getaddrinfo", "os.listdir", "os.scandir"):
                seen.append(f"{event} {arguments}")

        sys.addaudithook(watch)
        answer = open_server.post(f"/v1/adapters/team/base-{len(name)}/versions", json={"files": files})
        checked = open_server.post("/v1/check", json={"reference": "team/a", "base": name})
        looked = open_server.get("/v1/resolve/team/a", params={"base": name})
        watching[0] = False
        assert answer.status_code == 201
        assert checked.status_code in (200, 400)
        assert looked.status_code in (400, 422)
        assert [line for line in seen if str(trap) in line or "passwd" in line or "169.254" in line] == []


def test_what_is_private_is_nowhere(shelf: Registry, tmp_path: Path) -> None:
    reader = as_reader(shelf, tmp_path)
    asked = [
        reader.get("/v1/adapters"),
        reader.get("/v1/adapters?alias=production&all_versions=true"),
        reader.get("/v1/best?by=acc"),
        reader.get("/v1/events?after=0"),
        reader.post("/v1/resolve", json={"names": ["secret/b", "team/a"]}),
        reader.get("/v1/compare?ref=team/a@1&ref=secret/b@1"),
        reader.post("/v1/check", json={"reference": "secret/b", "engine": "vllm"}),
        reader.get("/v1/resolve/secre/b"),
        reader.get("/v1/resolve/team/aa"),
        reader.post("/v1/catalog/search", json={"query": None}),
        reader.get("/v1/adapters/team/a/versions/1"),
    ]
    digest = shelf.show("secret/b@1").version.digest
    for answer in asked:
        text = answer.text.replace("there is no adapter secret/b", "").replace('"name":"secret/b"', "")
        assert "secret" not in text, answer.url
        assert digest not in text
    for file in shelf.show("secret/b@1").manifest.files:
        if file.path == "adapter_model.safetensors":
            nobody = reader.get(f"/v1/blobs/{Digest.of(b'nobody')}").json()["code"]
            assert reader.get(f"/v1/blobs/{file.digest}").json()["code"] == nobody
    assert reader.post("/v1/catalog/resolve", json={"reference": digest}).status_code == 404


def test_events_go_on_where_a_reader_stopped(open_server: TestClient, shelf: Registry) -> None:
    page = open_server.get("/v1/events?after=0&limit=2").json()
    assert [item["sequence"] for item in page["items"]] == [1, 2]
    rest = open_server.get(f"/v1/events?after={page['after']}&limit=500").json()
    assert rest["items"][0]["sequence"] == 3
    assert [item["action"] for item in rest["items"]][-1] == "visibility"
    assert open_server.get(f"/v1/events?after={rest['after']}").json() == {"items": [], "after": rest["after"]}


def test_an_alias_moves_only_from_where_it_is_thought_to_be(open_server: TestClient) -> None:
    path = "/v1/adapters/team/a/aliases/production"
    etag = open_server.get(path).headers["etag"]
    assert open_server.put(path, json={"version": 2}, headers={"If-Match": '"2"'}).status_code == 412
    assert open_server.put(path, json={"version": 2}, headers={"If-Match": etag}).json()["moved"]
    stale = open_server.put(path, json={"version": 1}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["expected"], stale.json()["actual"]) == (412, 1, 2)
    assert open_server.get("/v1/resolve/team/a?alias=production").json()["version"] == 2
    assert open_server.put(path, json={"version": 9}).status_code == 404
    assert open_server.put(path, json={"version": 1}, headers={"If-Match": "x"}).status_code == 412
    assert open_server.put(path, json={"version": 1}, headers={"If-Match": '"2'}).status_code == 400


def test_an_alias_moves_only_through_its_gate(open_server: TestClient, shelf: Registry) -> None:
    path = "/v1/adapters/team/a/aliases/production"
    closed = open_server.post(f"{path}/promote", json={"version": 2, "minimum": ["acc>=0.9"]})
    assert (closed.status_code, closed.json()["code"], closed.json()["outcome"]["moved"]) == (422, "gate-closed", False)
    assert [each["holds"] for each in closed.json()["outcome"]["conditions"]] == [False]
    assert shelf.aliases("a") == {"production": 1}
    stale = {"If-Match": '"2"'}
    wanted = {"version": 2, "minimum": ["acc>=0.7"], "no_regression": ["acc"]}
    assert open_server.post(f"{path}/promote", json=wanted, headers=stale).status_code == 412
    moved = open_server.post(f"{path}/promote", json=wanted, headers={"If-Match": open_server.get(path).headers["etag"]})
    assert (moved.status_code, moved.json()["before"], moved.json()["after"]) == (200, 1, 2)
    assert moved.headers["etag"] == open_server.get(path).headers["etag"]
    assert open_server.post(f"{path}/promote", json={"version": 1}).json()["code"] == "empty-gate"
    shelf.yank("a@1", "bad")
    assert open_server.post(f"{path}/promote", json={**wanted, "version": 1}).json()["code"] == "version-yanked"


def test_a_gate_does_not_tell_of_what_is_private(shelf: Registry, tmp_path: Path) -> None:
    text, kept = new_token("tagger", [Action.READ, Action.TAG], [NamespacePattern("team/*")], expires_at=None)
    with shelf.catalog.writing() as writer:
        writer.add_token(kept)
    headers = {"Authorization": f"Bearer {text}"}
    client = TestClient(create_app(Settings(tmp_path / "registry")), base_url="http://localhost", headers=headers)
    digest = shelf.show("secret/b@1").version.digest
    for against, code in (("secret/b@1", "unknown-adapter"), ("secret/none@1", "unknown-adapter"), (digest, "unknown-version")):
        wanted = {"version": 2, "no_regression": ["acc"], "against": against}
        answer = client.post("/v1/adapters/team/a/aliases/production/promote", json=wanted)
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_pages_follow_each_other(open_server: TestClient) -> None:
    first = open_server.get("/v1/adapters?limit=1&all_versions=true").json()
    second = open_server.get(f"/v1/adapters?limit=1&all_versions=true&cursor={first['next']}").json()
    assert [page["items"][0]["reference"] for page in (first, second)] == ["secret/b@1", "team/a@2"]
    others = open_server.get("/v1/adapters?limit=1&sort=created").json()["next"]
    for cursor in ("x", "////", "e30", "bm9uZS9ub25l", others):
        assert open_server.get(f"/v1/adapters?cursor={cursor}").json()["code"] == "invalid-cursor"


@pytest.mark.parametrize("sort", [*SORTS, "acc"])
def test_pages_follow_each_other_whatever_their_rows_are_called(
    open_server: TestClient, shelf: Registry, write_adapter: WriteAdapter, sort: str
) -> None:
    names = [f"{'n' * MAX_LENGTH}/{letter * MAX_LENGTH}" for letter in "ab"]
    for name in names:
        shelf.push(write_adapter(f"long-{name[-1]}"), name=name, evaluations=["acc=0.12345678901234567"])
    asked = f"/v1/adapters?limit=1&sort={sort}&namespace={'n' * MAX_LENGTH}"
    first = open_server.get(asked).json()
    second = open_server.get(f"{asked}&cursor={first['next']}").json()
    assert {page["items"][0]["reference"] for page in (first, second)} == {f"{name}@1" for name in names}


def test_the_best_is_any_version_that_is_not_yanked(open_server: TestClient, shelf: Registry, write_adapter: WriteAdapter) -> None:
    """Newer ones without a score, or with a worse one, are not in its way; an alias is, which says what is meant."""
    shelf.push(write_adapter("a3", lora_tensors(value=0.125)), name="a", evaluations=["acc=0.25"])
    shelf.push(write_adapter("a4", lora_tensors(value=0.375)), name="a")

    def best(conditions: str = "") -> str | None:
        return open_server.get(f"/v1/best?by=acc&namespace=team{conditions}").json().get("reference")

    assert (best(), best("&all_versions=true"), best("&alias=production")) == ("team/a@2", "team/a@2", "team/a@1")
    shelf.yank("a@2", "because")
    assert (best(), best("&all_versions=true")) == ("team/a@1", "team/a@2")
    shelf.delete("a@2", "because")
    assert (best(), best("&all_versions=true")) == ("team/a@1", "team/a@1")
    shelf.yank("a@1", "because")
    assert (best(), best("&alias=production"), best("&metric=acc>=0.5")) == ("team/a@3", "team/a@1", None)


def test_the_best_is_asked_for_and_nothing_else(open_server: TestClient) -> None:
    assert open_server.get("/v1/best?by=acc").json()["reference"] == "secret/b@1"
    assert open_server.get("/v1/best?by=acc&reverse=true").json()["code"] == "unknown-parameter"


def test_an_alias_without_a_name_is_none(open_server: TestClient) -> None:
    """An empty variable in a script must not mean the newest version."""
    assert open_server.get("/v1/resolve/team/a?alias=").status_code == 400


@pytest.mark.parametrize("body", [{"version": True}, {"version": "2"}, {"version": 2.0}, {"version": 2, "expected": 1}])
def test_a_document_is_what_it_says(open_server: TestClient, body: dict[str, object]) -> None:
    assert open_server.put("/v1/adapters/team/a/aliases/canary", json=body).status_code == 400
    assert "canary" not in open_server.get("/v1/adapters/team/a/aliases").json()


def test_what_may_be_done_at_a_path_is_said(open_server: TestClient) -> None:
    answer = open_server.post(f"/v1/blobs/sha256:{'0' * 64}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, PUT")


@pytest.mark.parametrize("path", ["/v1/resolve/team/a", "/v1/adapters", "/v1/best?by=acc", "/api/models/team/a"])
def test_a_catalog_that_cannot_be_asked_is_said(
    open_server: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def lost(_catalog: object) -> bytes:
        raise UnavailableError("the catalog is locked", code="busy")

    monkeypatch.setattr(SqlCatalog, "generation", lost)
    answer = open_server.get(path)
    assert (answer.status_code, answer.headers.get("retry-after"), "x-request-id" in answer.headers) == (503, "1", True)


def test_pages_follow_each_other_though_their_rows_change(open_server: TestClient) -> None:
    def score(number: int, value: float) -> None:
        scores = {"evaluations": [{"metric": "f2", "value": value}]}
        open_server.post(f"/v1/adapters/team/a/versions/{number}/evaluations", json=scores)

    score(1, 0.9)
    score(2, 0.8)
    asked = "/v1/adapters?limit=1&all_versions=true&sort=f2"
    first = open_server.get(asked).json()
    score(1, 0.1)
    second = open_server.get(f"{asked}&cursor={first['next']}").json()
    assert [page["items"][0]["reference"] for page in (first, second)] == ["team/a@1", "team/a@2"]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e9", "x", "999999999999999999999"])
def test_a_page_has_a_size(open_server: TestClient, limit: str) -> None:
    assert open_server.get(f"/v1/adapters?limit={limit}").status_code == 400


def test_a_server_without_tokens_answers_only_to_this_machine(open_server: TestClient) -> None:
    """A page in the browser may have made its own name point here."""
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"):
        answer = open_server.get("/v1/adapters", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "wrong-host")


@pytest.mark.parametrize("name", ["tom's laptop", "CI (nightly)", "Jürgen"])
def test_a_token_is_called_as_it_may_be_on_the_server_s_machine(open_server: TestClient, name: str) -> None:
    made = open_server.post("/v1/tokens", json={"name": name, "actions": ["admin"]})
    assert (made.status_code, made.json().get("name")) == (201, name)
    open_server.headers["Authorization"] = f"Bearer {made.json()['text']}"
    kept = {"id": "zzzzzzzzzz", "name": name, "hash": "0" * 64, "actions": ["read"], "namespaces": ["*"], "expires_at": None}
    step = {"steps": [{"do": "add_token", "token": kept}], "commit": True}
    assert open_server.post("/v1/transactions", json=step).json()["results"][0]["name"] == name


def test_request_ids_are_kept_if_they_are_plain(open_server: TestClient) -> None:
    assert open_server.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert open_server.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
    for name in ("one", "two"):  # nobody gets that of the request for which an answer was made first
        assert open_server.get("/v1/resolve/team/a", headers={"X-Request-Id": name}).headers["x-request-id"] == name


def test_counters(open_server: TestClient) -> None:
    open_server.get("/healthz")
    for _ in range(3):
        open_server.get("/v1/resolve/team/a")
    text = open_server.get("/metrics").text
    assert 'adapters_requests_total{area="/healthz",method="GET",status="200"} 1.0' in text
    assert 'adapters_requests_total{area="/v1/resolve",method="GET",status="200"} 1.0' in text
    assert "adapters_kept_answers_total 2.0" in text
    assert "adapters_kept_answers_total 2.0" in open_server.get("/metrics").text
