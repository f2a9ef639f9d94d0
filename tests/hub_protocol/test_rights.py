"""Who may do what: every route of the table, for everybody there is."""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.api.hub_protocol import lifecycle
from registry.api.hub_protocol.table import ROUTES, Route, find
from registry.domain.access import Action, NamespacePattern, new_token
from registry.errors import InvalidNameError
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import Hub, hub, in_files


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store")
    found.create("team/x", private=True)
    found.committed("team/x", in_files(write_one(tmp_path / "a")))
    with found.registry.catalog.writing() as writer:
        writer.revoke_token(found.tokens["reader"].split("_")[1])
    found.tokens["revoked"] = found.tokens["reader"]
    found.tokens["reader"] = make_reader(found)
    return found


def make_reader(here: Hub) -> str:
    wanted = {"name": "reader2", "actions": ["read"], "namespaces": ["team/*"]}
    text: str = here.ask("POST", "/v1/tokens", who="admin", json=wanted).json()["text"]
    return text


def path_of(route: Route, sha: str) -> str:
    words = {
        "ns": "team", "name": "x", "revision": sha, "path": "adapter_config.json", "kind": "read", "branch": "b", "version": "1",
        "signature": "none.such", "namespace": "team", "nonce": "0" * 32, "hash": "0" * 64, "prefix": "default",
    }  # fmt: skip
    if "/tree/" in route.pattern:
        words["path"] = ""
    return re.sub(r"\{(\w+)(?:\.\.\.)?\}", lambda match: words[match[1]], route.pattern).rstrip("/")


def body_of(route: Route) -> object:
    name = route.pattern.rpartition("/")[2]
    wanted = {
        "create": {"name": "x", "organization": "team"},
        "delete": {"name": "x", "organization": "team"},
        "move": {"fromRepo": "team/x", "toRepo": "team/y"},
        "batch": {"operation": "upload", "objects": []},
        "verify": {"oid": "0" * 64, "size": 1},
    }
    return wanted.get(name, {})


def expected(route: Route, who: str | None) -> set[int]:
    """The statuses of those who may not; empty for those who may."""
    if route.anybody:
        return set()
    if route.signed or who in (None, "revoked"):
        return {401}
    if who == "other" and not route.somewhere:
        return {404}
    if route.action is Action.READ or who == "writer":
        return set()
    hidden = who == "other" and route.handler is not lifecycle.create
    return {404} if hidden else {403}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.methods[0]} {route.pattern}")
def test_every_route_is_for_those_alone_who_may(here: Hub, route: Route) -> None:
    """And whoever is refused changes nothing."""
    before = here.registry.catalog.audit(limit=1)[0].sequence
    path = path_of(route, here.sha("team/x") if route.action is Action.READ else "main")
    method = route.methods[0]
    body = {"json": body_of(route)} if method != "GET" else {}
    for who in (None, "revoked", "other", "reader", "writer"):
        answer = here.ask(method, path, who=who, **body)
        refused = expected(route, who)
        if refused:
            assert answer.status_code in refused, (who, answer.text)
            if answer.status_code == 404:
                assert answer.headers["x-error-code"] == "RepoNotFound"
            assert here.registry.catalog.audit(limit=1)[0].sequence == before
        else:
            code = answer.json().get("code") if answer.status_code >= 400 else None
            assert code not in ("forbidden", "unauthenticated", "unknown-adapter"), (who, answer.text)


def test_every_route_is_reachable() -> None:
    for route in ROUTES:
        parts = path_of(route, "1" * 40).strip("/").split("/")
        for method in route.methods:
            found = find(method, parts)
            assert found is not None
            assert found[0].handler is route.handler


def test_public_repositories_are_read_by_everybody_where_that_is_wanted(tmp_path: Path) -> None:
    here = hub(tmp_path / "store", anonymous_read=True)
    here.create("team/open")
    here.create("team/closed", private=True)
    assert here.get("/api/models/team/open", who=None)["private"] is False
    refused = here.ask("GET", "/api/models/team/closed", who=None)
    assert (refused.status_code, refused.headers["x-error-code"]) == (404, "RepoNotFound")
    theirs = {"Authorization": "Bearer hf_ofsomebodyelse"}
    assert here.ask("GET", "/api/models/team/open", headers=theirs, who=None).status_code == 200
    assert here.commit("team/open", {"a.txt": b"1"}, who=None).status_code == 401


def test_on_loopback_without_tokens_everybody_may_everything(tmp_path: Path) -> None:
    here = hub(tmp_path / "store", tokens=False)
    assert here.get("/api/whoami-v2")["name"] == "local"
    here.create("local/x")
    here.committed("local/x", in_files(write_one(tmp_path / "a")))
    assert here.ask("GET", "/api/models/local/x", headers={"Host": "evil.example"}).status_code == 421
    page = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    told = here.ask("POST", "/api/repos/create", headers=page, content='{"name": "y", "organization": "local"}')
    assert (told.status_code, told.json()["code"]) == (403, "other-site")


def test_a_digest_gives_nobody_the_bytes(here: Hub) -> None:
    """Neither by a commit, nor by an upload that is not made because they are here."""
    weights = here.read("team/x", "adapter_model.safetensors")
    oid = hashlib.sha256(weights).hexdigest()
    created = here.ask("POST", "/api/repos/create", who="other", json={"organization": "other", "name": "y"})
    assert created.status_code == 200
    lines = [
        {"key": "header", "value": {"summary": "mine now"}},
        {"key": "lfsFile", "value": {"path": "w.safetensors", "algo": "sha256", "oid": oid}},
    ]
    body = "\n".join(json.dumps(line) for line in lines)
    stolen = here.ask("POST", "/api/models/other/y/commit/main", who="other", content=body)
    unknown = here.ask("POST", "/api/models/other/y/commit/main", who="other", content=body.replace(oid, "0" * 64))
    assert (stolen.status_code, unknown.status_code) == (400, 400)
    assert stolen.json()["error"].replace(oid, "") == unknown.json()["error"].replace("0" * 64, "")
    wanted = {"operation": "upload", "objects": [{"oid": oid, "size": len(weights)}]}
    batch = here.ask("POST", "/other/y.git/info/lfs/objects/batch", who="other", json=wanted).json()
    assert "upload" in batch["objects"][0]["actions"]
    own = here.ask("POST", "/team/x.git/info/lfs/objects/batch", json=wanted).json()
    assert "actions" not in own["objects"][0]
    address = batch["objects"][0]["actions"]["upload"]["href"].removeprefix("http://localhost")
    assert here.ask("PUT", address, who=None, content=weights).status_code == 200
    assert here.ask("POST", "/api/models/other/y/commit/main", who="other", content=body).status_code == 200


def test_no_address_outlives_its_token(here: Hub) -> None:
    """To upload to, as Git-LFS and Xet have them: whoever could push yesterday stores nothing today."""
    data = b"some bytes"
    oid = hashlib.sha256(data).hexdigest()
    wanted = {"operation": "upload", "objects": [{"oid": oid, "size": len(data)}]}
    batch = here.ask("POST", "/team/x.git/info/lfs/objects/batch", json=wanted).json()
    xet = here.get("/api/models/team/x/xet-write-token/main")
    place, bearer = xet["casUrl"].removeprefix("http://localhost"), {"Authorization": f"Bearer {xet['accessToken']}"}
    with here.registry.catalog.writing() as writer:
        writer.revoke_token(here.tokens["writer"].split("_")[1])
    address = batch["objects"][0]["actions"]["upload"]["href"].removeprefix("http://localhost")
    assert here.ask("PUT", address, who=None, content=data).status_code == 401
    for path in (f"/v1/xorbs/default/{'0' * 64}", "/v1/shards"):
        assert here.ask("POST", f"{place}{path}", who=None, headers=bearer, content=data).status_code == 401
    assert f"sha256:{oid}" not in set(here.registry.blobs.digests())


def test_no_address_outlives_a_server_without_tokens(tmp_path: Path) -> None:
    here = hub(tmp_path / "store", tokens=False)
    here.create("local/x")
    data = b"some bytes"
    wanted = {"operation": "upload", "objects": [{"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}]}
    batch = here.ask("POST", "/local/x.git/info/lfs/objects/batch", json=wanted).json()
    address = batch["objects"][0]["actions"]["upload"]["href"].removeprefix("http://localhost")
    assert here.ask("PUT", address, who=None, content=data).status_code == 200
    with here.registry.catalog.writing() as writer:
        writer.add_token(new_token("first", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)[1])
    assert here.ask("PUT", address, who=None, content=data).status_code == 401


def test_no_answer_outlives_its_token(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are kept, and one that was kept for a token ends with it."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    stamp = ends.isoformat(timespec="microseconds").replace("+00:00", "Z")
    text, kept = new_token("brief", [Action.READ], [NamespacePattern("team/*")], expires_at=stamp)
    with here.registry.catalog.writing() as writer:
        writer.add_token(kept)
    here.tokens["brief"] = text
    for _ in range(2):
        assert here.ask("GET", "/api/models/team/x", who="brief").status_code == 200
    monkeypatch.setattr(time, "time", lambda: ends.timestamp() + 1)
    monkeypatch.setattr("registry.api.callers.utc_now", lambda: (ends + timedelta(seconds=1)).isoformat().replace("+00:00", "Z"))
    assert here.ask("GET", "/api/models/team/x", who="brief").status_code == 401


def test_the_registrys_own_routes_are_not_the_hubs(here: Hub) -> None:
    assert here.ask("DELETE", "/v1/resolve/team/x").status_code == 405
    unknown = here.ask("GET", "/v1/nothing")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    assert here.ask("POST", "/api/models/team/x").status_code == 405
    assert here.ask("GET", "/api/agent-harnesses", who=None).status_code == 404


@pytest.mark.parametrize("namespace", ["api", "models", "v1", "Datasets", "xet"])
def test_nothing_is_made_where_nothing_could_be_served(here: Hub, tmp_path: Path, namespace: str) -> None:
    answer = here.ask("POST", "/api/repos/create", who="admin", json={"organization": namespace, "name": "x"})
    assert answer.status_code == 400
    assert here.ask("PUT", f"/v1/adapters/{namespace}/x", who="admin", json={"private": False}).status_code == 400
    before = set(here.registry.blobs.digests())
    with pytest.raises(InvalidNameError):
        here.registry.push(write_one(tmp_path / "b", value=0.25), name=f"{namespace}/x")
    assert set(here.registry.blobs.digests()) == before
    wanted = {"fromRepo": "team/x", "toRepo": f"{namespace}/x"}
    assert here.ask("POST", "/api/repos/move", who="admin", json=wanted).status_code == 400
