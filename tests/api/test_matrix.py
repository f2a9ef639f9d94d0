"""Who may do what: every route of the application, for every kind of caller, from one table.

A route that is not in the table fails the suite; so does one whose answer to a caller is not what its action says. An adapter
that a caller may not read is answered exactly as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.limits import Limits
from registry.api.settings import Settings
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, _checksum, new_token
from tests.conftest import WriteAdapter

D = "sha256:" + "0" * 64
ADMIN, READ, PUSH, TAG, YANK, DELETE = Action.ADMIN, Action.READ, Action.PUSH, Action.TAG, Action.YANK, Action.DELETE
X = "/v1/adapters/{ns}/{name}"
REASON = {"reason": "a test"}
ALIASES = {"do": "aliases", "adapter": "open/y"}


@dataclass(frozen=True)
class Route:
    """``anywhere``: it looks at its objects itself; whoever may do this at all gets in. None: everybody does."""

    method: str
    path: str
    action: Action | None
    anywhere: bool = False
    body: Any = None


TABLE = [
    Route("GET", "/healthz", None),
    Route("GET", "/readyz", None),
    Route("GET", "/metrics", ADMIN),
    Route("GET", "/v1/adapters", READ, anywhere=True),
    Route("GET", X, READ),
    Route("PUT", X, PUSH, body={"private": True}),
    Route("DELETE", X, DELETE, body=REASON),
    Route("GET", X + "/versions", READ),
    Route("POST", X + "/versions", PUSH, body={"files": [{"path": "a", "digest": D}]}),
    Route("GET", X + "/versions/{number}", READ),
    Route("DELETE", X + "/versions/{number}", DELETE, body=REASON),
    Route("PUT", X + "/versions/{number}/yank", YANK, body=REASON),
    Route("DELETE", X + "/versions/{number}/yank", YANK),
    Route("PUT", X + "/versions/{number}/tags", TAG, body={"k": "v"}),
    Route("DELETE", X + "/versions/{number}/tags/{key}", TAG),
    Route("GET", X + "/versions/{number}/evaluations", READ),
    Route("POST", X + "/versions/{number}/evaluations", PUSH, body={"evaluations": [{"metric": "acc", "value": 1}]}),
    Route("GET", X + "/versions/{number}/lineage", READ),
    Route("GET", X + "/aliases", READ),
    Route("GET", X + "/aliases/{alias}", READ),
    Route("GET", X + "/aliases/{alias}/history", READ),
    Route("PUT", X + "/aliases/{alias}", TAG, body={"version": 1}),
    Route("DELETE", X + "/aliases/{alias}", TAG),
    Route("POST", X + "/aliases/{alias}/promote", TAG, body={"version": 1, "minimum": ["acc>=0"]}),
    Route("GET", "/v1/resolve/{ns}/{name}", READ),
    Route("POST", "/v1/resolve", READ, anywhere=True, body={"names": ["team/x"]}),
    Route("GET", "/v1/best", READ, anywhere=True),
    Route("GET", "/v1/compare", READ, anywhere=True),
    Route("POST", "/v1/check", READ, anywhere=True, body={"reference": "open/y", "engine": "vllm"}),
    Route("GET", "/v1/bases", READ, anywhere=True),
    Route("GET", "/v1/bases/{owner}/{base}", READ, anywhere=True),
    Route("GET", "/v1/bases/{base}", READ, anywhere=True),
    Route("PUT", "/v1/base-aliases/{base}", ADMIN, body={"canonical": "a/b"}),
    Route("DELETE", "/v1/base-aliases/{base}", ADMIN),
    Route("PUT", "/v1/base-aliases/{owner}/{base}", ADMIN, body={"canonical": "a/b"}),
    Route("DELETE", "/v1/base-aliases/{owner}/{base}", ADMIN),
    Route("GET", "/v1/events", READ, anywhere=True),
    Route("GET", "/v1/audit", ADMIN),
    Route("GET", "/v1/whoami", READ, anywhere=True),
    Route("GET", "/v1/tokens", ADMIN),
    Route("POST", "/v1/tokens", ADMIN, body={"name": "t", "actions": ["read"]}),
    Route("DELETE", "/v1/tokens/{token_id}", ADMIN),
    Route("GET", "/v1/blobs/{digest}", READ, anywhere=True),
    Route("HEAD", "/v1/blobs/{digest}", READ, anywhere=True),
    Route("PUT", "/v1/blobs/{digest}", PUSH, anywhere=True),
    Route("POST", "/v1/blobs/missing", PUSH, anywhere=True, body={"digests": [D]}),
    Route("GET", "/v1/uploads/{digest}", PUSH, anywhere=True),
    Route("PATCH", "/v1/uploads/{digest}", PUSH, anywhere=True),
    Route("POST", "/v1/catalog/{question}", READ, anywhere=True, body={}),
    Route("POST", "/v1/transactions", PUSH, anywhere=True, body={"steps": [ALIASES], "commit": False}),
    Route("POST", "/v1/store/doctor", ADMIN, body={}),
    Route("POST", "/v1/store/verify", ADMIN, body={}),
    Route("POST", "/v1/store/gc", ADMIN, body={}),
    Route("GET", "/v1/store/blobs", ADMIN),
    Route("DELETE", "/v1/store/blobs/{digest}", ADMIN),
]
SAMPLES = {"ns": "team", "name": "x", "number": "1", "alias": "production", "key": "k", "token_id": "0000000000",
           "digest": D, "owner": "o", "base": "b", "question": "bases"}  # fmt: skip

#: What each kind of caller may do in ``team/*``; None is nobody, or a token that is none any more.
CALLERS: dict[str, frozenset[Action] | None] = {
    "anonymous": None,
    "expired": None,
    "revoked": None,
    "made-up": None,
    "reader": frozenset([READ]),
    "writer": frozenset([READ, PUSH]),
    "maintainer": frozenset([READ, PUSH, TAG, YANK]),
    "owner": frozenset([READ, PUSH, TAG, YANK, DELETE]),
    "owner of others": frozenset(),
    "admin": frozenset(Action),
}


@dataclass
class Scene:
    client: TestClient
    tokens: dict[str, str]


def scene(folder: Path, write_adapter: WriteAdapter, *, anonymous_read: bool) -> Scene:
    registry = connect(folder / "registry")
    registry.push(write_adapter("x"), name="team/x", alias="production", tags={"k": "v"})
    registry.push(write_adapter("y"), name="open/y")
    tokens: dict[str, str] = {"made-up": new_token("none", [ADMIN], [NamespacePattern("*")], expires_at=None)[0]}
    with registry.catalog.writing() as writer:
        writer.set_private(registry.adapter("team/x"), private=True)
        for name, actions in CALLERS.items():
            if name in ("anonymous", "made-up"):
                continue
            pattern = "*" if actions is None or ADMIN in actions else "other/*" if name == "owner of others" else "team/*"
            granted = [ADMIN] if actions is None else list(actions) or [READ, PUSH, TAG, YANK, DELETE]
            expires = "2020-01-01T00:00:00Z" if name == "expired" else None
            text, kept = new_token(name, granted, [NamespacePattern(pattern)], expires_at=expires)
            writer.add_token(kept)
            tokens[name] = text
            if name == "revoked":
                writer.revoke_token(kept.id)
    settings = Settings(folder / "registry", anonymous_read=anonymous_read, failures_per_minute=100_000)
    return Scene(TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False), tokens)


def application(where: Scene) -> Any:
    """Below what stands before it."""
    app: Any = where.client.app
    while not hasattr(app, "openapi"):
        app = app._app
    return app


@pytest.fixture
def closed(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Scene]:
    yield scene(tmp_path, write_adapter, anonymous_read=False)


@pytest.fixture
def public(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Scene]:
    yield scene(tmp_path, write_adapter, anonymous_read=True)


def ask(where: Scene, route: Route, caller: str) -> tuple[int, str | None]:
    path = route.path
    for name, sample in SAMPLES.items():
        path = path.replace("{" + name + "}", sample)
    headers = {"Authorization": f"Bearer {where.tokens[caller]}"} if caller in where.tokens else {}
    if route.method == "PATCH":
        headers |= {"Upload-Offset": "0", "Upload-Length": "1"}
    answer = where.client.request(route.method, path, headers=headers, json=route.body)
    document = answer.json() if "problem" in answer.headers.get("content-type", "") and answer.content else {}
    return answer.status_code, document.get("code")


def expected(route: Route, caller: str, *, anonymous_read: bool) -> tuple[int, str | None] | None:
    """The refusal, or None if the caller gets in."""
    allowed = CALLERS[caller]
    if route.action is None:
        return None
    if allowed is None:
        if not (anonymous_read and route.action is READ):
            return 401, "unauthenticated"
        return None if route.anywhere else (404, "unknown-adapter")
    if route.action in allowed or (caller == "owner of others" and route.anywhere):
        return None
    about = "{ns}" in route.path
    if caller == "owner of others" and about and route.action is not PUSH:
        return 404, "unknown-adapter"
    return 403, "forbidden"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("server", ["closed", "public"])
def test_every_route_for_every_caller(caller: str, server: str, request: pytest.FixtureRequest) -> None:
    where: Scene = request.getfixturevalue(server)
    wrong = []
    for route in sorted(TABLE, key=lambda each: each.method in ("DELETE", "PUT")):
        wanted = expected(route, caller, anonymous_read=server == "public")
        status, code = ask(where, route, caller)
        if route.method == "HEAD":
            code = wanted[1] if wanted else None
        if wanted is not None and (status, code) != wanted:
            wrong.append((route.method, route.path, (status, code), wanted))
        if wanted is None and (status in (401, 403) or status >= 500):
            wrong.append((route.method, route.path, (status, code), "in"))
        if caller in ("admin", "owner") and route.method == "DELETE" and route.path == X and wanted is None:
            break  # there is nothing left to ask about
    assert wrong == []


def test_the_table_has_every_route(closed: Scene) -> None:
    described = application(closed).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert {(each.method, each.path) for each in TABLE} == served


def test_what_may_not_be_known_looks_as_if_it_were_not_there(closed: Scene) -> None:
    """Byte for byte, but for the name that was asked for."""
    for caller in ("owner of others",):
        headers = {"Authorization": f"Bearer {closed.tokens[caller]}"}
        for path in ("/v1/adapters/team/{}", "/v1/resolve/team/{}?alias=production", "/v1/adapters/team/{}/versions/1"):
            there = closed.client.get(path.format("x"), headers=headers)
            nowhere = closed.client.get(path.format("z"), headers=headers)
            assert (there.status_code, there.text) == (404, nowhere.text.replace("team/z", "team/x"))


def test_other_methods_and_their_disguises_are_refused(closed: Scene) -> None:
    headers = {"Authorization": f"Bearer {closed.tokens['reader']}", "X-HTTP-Method-Override": "DELETE"}
    assert closed.client.get("/v1/adapters/team/x", headers=headers).status_code == 200
    assert closed.client.post("/v1/adapters/team/x", headers=headers, json={}).status_code == 405
    assert closed.client.request("TRACE", "/v1/adapters/team/x", headers=headers).status_code == 405


def test_a_token_in_an_address_is_refused(closed: Scene) -> None:
    answer = closed.client.get(f"/v1/adapters?token={closed.tokens['admin']}")
    assert (answer.status_code, answer.json()["code"]) == (400, "token-in-url")


def test_many_wrong_tokens_are_slowed_down(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    where = scene(tmp_path, write_adapter, anonymous_read=False)
    application(where).state.gatekeeper._failures = Limits(10)
    right = where.tokens["admin"]
    statuses = []
    for _ in range(60):
        wrong = new_token("x", [ADMIN], [NamespacePattern("*")], expires_at=None)[0]
        forged = f"adr_{right[4:14]}_{wrong[15:58]}"
        headers = {"Authorization": f"Bearer {forged}_{_checksum(forged)}"}
        statuses.append(where.client.get("/v1/tokens", headers=headers).status_code)
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429


def test_wrong_secrets_of_a_token_do_not_lock_it_out(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    where = scene(tmp_path, write_adapter, anonymous_read=False)
    application(where).state.gatekeeper._failures = Limits(1)
    right = where.tokens["admin"]
    text = f"{right[:15]}{'A' * 43}"
    forged = {"Authorization": f"Bearer {text}_{_checksum(text)}"}
    assert [where.client.get("/v1/tokens", headers=forged).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert where.client.get("/v1/tokens", headers={"Authorization": f"Bearer {right}"}).status_code == 200


def test_wrong_secrets_are_counted_by_address_whatever_token_they_name(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    where = scene(tmp_path, write_adapter, anonymous_read=False)
    application(where).state.gatekeeper._failures = Limits(1)
    wrong = [new_token("x", [ADMIN], [NamespacePattern("*")], expires_at=None)[0] for _ in range(4)]
    assert [
        where.client.get("/v1/tokens", headers={"Authorization": f"Bearer {each}"}).status_code for each in wrong
    ] == [401, 401, 429, 429]
