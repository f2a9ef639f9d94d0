"""Attacks, one by one; each shows that nothing was written, nobody else was asked, and the server goes on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import quote

import pytest

from registry.api.routes.transactions import STEPS
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.digest import Digest
from tests.api.sites import Site, head, sent, site
from tests.api.test_matrix import SAMPLES, TABLE
from tests.conftest import WriteAdapter, lora_tensors

D = "sha256:" + "0" * 64


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found
        assert found.shelf.doctor(deep=True).problems == ()


@pytest.fixture
def unlocked(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    """Without tokens: whoever reaches it may do everything, so nobody but this machine's user must."""
    with site(tmp_path, write_adapter, with_tokens=False) as found:
        yield found


# Paths and names

PATHS = [
    "..", "../x", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252fetc", "..%5c..%5cx", "C:%5cx",
    "%5c%5chost%5cshare", "%00", "x%00y", "%c0%ae%c0%ae%2f", "%ef%bc%8e%ef%bc%8e", "x%23y", "x%3fy", "file:%2f%2f%2fetc%2fpasswd",
    "http:%2f%2f127.0.0.1", "~", "~root", "$HOME", "`id`", "x%0d%0aSet-Cookie:a=b", "x%20y", ".", "-", "--", "a--b", "a..b", ".a",
    "a.", "%20", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "sha512:" + "0" * 64,
    "sha256:" + "%2e%2e%2f" * 8, "x" * 300, "%ff%fe", "'%20OR%201=1--", "%25s%25n", "a%2fb",
]  # fmt: skip
PLACES = sorted({(route.method, route.path) for route in TABLE if "{" in route.path})


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), PLACES)
def test_no_path_leaves_its_place(here: Site, method: str, path: str) -> None:
    """Every parameter of every route, by the one who may do everything."""
    body = next(route.body for route in TABLE if (route.method, route.path) == (method, path))
    headers = {"Upload-Offset": "0", "Upload-Length": "1"}
    free = {"{key}", "{token_id}"}  # any text is one that is not there
    free |= {"{owner}", "{base}"} if method == "DELETE" else set()
    with here.unchanged():
        for part in [part for part in path.split("/") if part.startswith("{")]:
            for word in PATHS:
                asked = path.replace(part, word)
                for name, sample in SAMPLES.items():
                    asked = asked.replace("{" + name + "}", {"ns": "b", "name": "nobody"}.get(name, sample))
                answer = here.ask(method, asked, "root", body, headers if method == "PATCH" else None)
                assert 400 <= answer.status < 500 or part in free, (asked, answer)
                assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "name",
    ["b/ореn", "b/ｏｐｅｎ", "b/op١n", "b/open\n", "b/open ", "b/o\u200bpen", "b/\u202eopen", "b/" + "x" * 97, "b/a--b", "ｂ/o"],
)
def test_a_name_that_looks_like_another_is_refused(here: Site, name: str) -> None:
    with here.unchanged():
        answer = here.ask("PUT", f"/v1/adapters/{quote(name)}", "root", {"private": False})
        assert (answer.status, answer.code) == (400, "invalid-name" if answer.code != "invalid-input" else answer.code)
        for body in ({"names": [name]},):
            (item,) = here.ask("POST", "/v1/resolve", "root", body).json["items"]
            assert item["problem"]["status"] in (400, 404)


def test_names_that_differ_by_case_are_one_name(here: Site) -> None:
    with here.unchanged():
        made = here.ask("PUT", "/v1/adapters/B/OPEN", "root", {"private": False})
        assert (made.status, made.json["created"]) == (200, False)
    assert here.ask("GET", "/v1/adapters/A/Secret", "bob").code == "unknown-adapter"


# What is final, and who wins


def test_numbers_are_never_used_again(here: Site, write_adapter: WriteAdapter) -> None:
    x = "/v1/adapters/b/open"
    assert here.ask("DELETE", f"{x}/versions/2", "bob", {"reason": "a mistake"}).status == 204
    with here.unchanged():
        for method, path, body in (
            ("GET", f"{x}/versions/2", None),
            ("PUT", f"{x}/aliases/production", {"version": 2}),
            ("PUT", f"{x}/versions/2/tags", {"k": "v"}),
            ("PUT", f"{x}/versions/2/yank", {"reason": "again"}),
            ("DELETE", f"{x}/versions/2", {"reason": "again"}),
            ("POST", f"{x}/versions/2/evaluations", {"evaluations": [{"metric": "acc", "value": 1}]}),
            ("POST", f"{x}/aliases/production/promote", {"version": 2, "minimum": ["acc>=0"]}),
        ):
            answer = here.ask(method, path, "bob", body)
            assert (answer.status, answer.code) == (404, "version-deleted"), (method, path)
    again = here.shelf.push(write_adapter("again", lora_tensors(value=0.75)), name="b/open")
    assert (again.created, again.version.number) == (True, 3)


def test_of_sixteen_who_move_an_alias_from_one_place_one_does(here: Site) -> None:
    x = "/v1/adapters/b/open/aliases/production"
    assert here.ask("PUT", x, "bob", {"version": 1}).status == 200
    start = Barrier(16)

    def move(_number: int) -> int:
        start.wait()
        return here.ask("PUT", x, "bob", {"version": 2}, {"If-Match": '"1"'}).status

    with ThreadPoolExecutor(16) as crowd:
        statuses = sorted(crowd.map(move, range(16)))
    assert statuses == [200] + [412] * 15
    moves = here.ask("GET", f"{x}/history", "bob").json["items"]
    assert [(each["from"], each["to"]) for each in moves] == [(None, 1), (1, 2)]


# Others' property

OF_A_VERSION = {
    "set_tags": {"tags": {"pwned": "1"}},
    "remove_tags": {"keys": ["k"]},
    "yank": {"reason": "x"},
    "unyank": {},
    "delete": {"reason": "x"},
    "add_evaluations": {"evaluations": [{"metric": "acc", "value": 1}]},
    "evaluations": {},
    "resolve": {},
}


@pytest.mark.parametrize("step", OF_A_VERSION)
def test_a_step_that_names_ones_own_adapter_beside_anothers_version_is_refused(here: Site, step: str) -> None:
    digest = here.shelf.show("a/secret@1").version.digest
    key = "reference" if step == "resolve" else "version"
    for version in ("a/secret@1", "A/Secret:production", digest, digest[:20]):
        for own in ({}, {"adapter": "b/open"}, {"adapter": "b/open", "reference": "b/open@1", "version": "b/open@1"}):
            with here.unchanged():
                given = {"do": step, **OF_A_VERSION[step], **own, key: version}
                for commit in (True, False):
                    answer = here.ask("POST", "/v1/transactions", "bob", {"steps": [given], "commit": commit})
                    hidden = 403 if step == "add_evaluations" and "/" in version else 404  # the same for what is not there
                    hidden = 400 if own else hidden  # a step takes nothing beside its arguments
                    assert answer.status == hidden, (given, answer)
                    assert b"0.77" not in answer.body


def test_every_step_that_takes_a_version_is_tried() -> None:
    alone = {"aliases", "add_version", "move_alias", "add_base", "alias_base", "create_adapter", "set_private", "remove_adapter"}
    alone |= {"rename_adapter", "add_token", "revoke_token"}
    assert set(STEPS) == set(OF_A_VERSION) | alone


@pytest.mark.parametrize(
    "step",
    [
        {"do": "aliases", "adapter": "a/secret"},
        {"do": "move_alias", "adapter": "a/secret", "alias": "x", "to": 1},
        {"do": "set_private", "adapter": "a/secret", "private": False},
        {"do": "remove_adapter", "adapter": "a/secret", "reason": "x"},
        {"do": "rename_adapter", "adapter": "a/secret", "to": "b/mine"},
        {"do": "rename_adapter", "adapter": "b/open", "to": "a/theirs"},
        {"do": "create_adapter", "adapter": "a/new", "private": False},
        {"do": "add_token", "token": {}},
        {"do": "revoke_token", "token_id": "0000000000"},
        {"do": "alias_base", "name": "a/b", "canonical": "c/d"},
        {"do": "add_base", "base": {}},
    ],
)
def test_no_step_does_what_a_route_would_refuse(here: Site, step: dict[str, Any]) -> None:
    with here.unchanged():
        steps = [{"do": "aliases", "adapter": "b/open"}, step]
        answer = here.ask("POST", "/v1/transactions", "bob", {"steps": steps, "commit": True})
        assert answer.status in (403, 404), answer


# Tokens


def test_tokens_are_the_administrators(here: Site) -> None:
    theirs = here.tokens["alice"][4:14]
    with here.unchanged():
        for token_id in (theirs, "0000000000", "nothing"):
            assert here.ask("DELETE", f"/v1/tokens/{token_id}", "bob").code == "forbidden"
        assert here.ask("DELETE", "/v1/tokens/0000000000", "root").code == "unknown-token"
        assert here.ask("POST", "/v1/tokens", "bob", {"name": "x", "actions": ["admin"]}).code == "forbidden"


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_in_an_address_is_refused_everywhere(here: Site, name: str) -> None:
    with here.unchanged():
        for route in TABLE:
            if route.action is None:
                continue
            path = route.path
            for part, sample in SAMPLES.items():
                path = path.replace("{" + part + "}", sample)
            body = None if route.method in ("GET", "HEAD") else route.body
            headers = {"Upload-Offset": "0", "Upload-Length": "1"} if route.method == "PATCH" else None
            answer = here.ask(route.method, f"{path}?{name}={here.tokens['root']}", None, body, headers)
            assert answer.status == 400, (route, answer)
            assert here.tokens["root"].encode() not in answer.body


def test_a_token_ends_at_once_and_in_memory_too(here: Site) -> None:
    path = "/v1/resolve/a/secret?alias=production"
    for _ in range(3):
        assert here.ask("GET", path, "alice").status == 200
    assert here.ask("DELETE", f"/v1/tokens/{here.tokens['alice'][4:14]}", "root").status == 204
    assert here.ask("GET", path, "alice").status == 401
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    stamp = soon.isoformat(timespec="microseconds").replace("+00:00", "Z")
    text, kept = new_token("short", [Action.READ], [NamespacePattern("a/*")], expires_at=stamp)
    with here.shelf.catalog.writing() as writer:
        writer.add_token(kept)
    for _ in range(3):
        assert here.ask("GET", path, headers={"Authorization": f"Bearer {text}"}).status == 200
    time.sleep(1.6)
    assert here.ask("GET", path, headers={"Authorization": f"Bearer {text}"}).status == 401


def test_no_secret_is_written_anywhere(here: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the log, the audit, the store, an answer or the description."""
    caplog.set_level(logging.DEBUG)
    made = here.ask("POST", "/v1/tokens", "root", {"name": "ci", "actions": ["read"], "namespaces": ["b/*"]}).json["text"]
    told = []
    for who in (*here.tokens, None):
        for route in TABLE:
            path = route.path
            for part, sample in SAMPLES.items():
                path = path.replace("{" + part + "}", sample)
            body = None if route.method in ("GET", "HEAD", "DELETE") else route.body
            told.append(here.ask(route.method, path, who, body, {"X-Request-Id": f"r-{who}"}).body)
    told.append(here.ask("GET", "/v1/openapi.json").body)
    told.append(json.dumps([[entry.actor, dict(entry.body)] for entry in here.shelf.log(limit=1000)]).encode())
    kept = b"".join(path.read_bytes() for path in here.place.rglob("*") if path.is_file())
    for text in (*here.tokens.values(), made):
        secret = text.split("_", 2)[2][:43]
        assert secret not in caplog.text
        assert secret.encode() not in kept
        assert not any(secret.encode() in each for each in told[:-2] if text != made)
        assert secret.encode() not in told[-1] + told[-2]
    assert "r-bob" in caplog.text  # the log is there


# Browsers

FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json", "application/jsonx"]


@pytest.mark.parametrize("kind", FORMS)
def test_a_form_of_another_site_changes_nothing(unlocked: Site, kind: str) -> None:
    """Even on a server that lets this machine do everything: the machine's browser is on it."""
    with unlocked.unchanged():
        for route in TABLE:
            if route.method in ("GET", "HEAD") or route.body is None or route.path == "/v1/resolve":
                continue
            path = route.path
            for part, sample in {**SAMPLES, "ns": "b", "name": "open"}.items():
                path = path.replace("{" + part + "}", sample)
            headers = {"Content-Type": kind, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
            answer = unlocked.ask(route.method, path, None, json.dumps(route.body).encode(), headers)
            assert (answer.status, answer.code) == (415, "content-type"), (route, answer)


def test_no_other_site_is_let_in(unlocked: Site) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:3000"):
        for method in ("OPTIONS", "GET"):
            headers = {"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
            answer = unlocked.ask(method, "/v1/adapters", None, None, headers)
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.status == (200 if method == "GET" else 405)


def test_a_cookie_is_no_token(here: Site) -> None:
    with here.unchanged():
        for text in (here.tokens["root"], f"Bearer {here.tokens['root']}"):
            assert here.ask("GET", "/v1/tokens", headers={"Cookie": f"token={text}; Authorization={text}"}).status == 401


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "LINK", "get", "X" * 50])
def test_methods_that_nobody_knows(here: Site, method: str) -> None:
    with here.unchanged():
        found = sent(here, head(here, f"{method} /v1/adapters/b/open HTTP/1.1", "Connection: close"))
        assert found.split(b" ", 2)[1] in (b"400", b"405", b"501")
        assert here.tokens["root"].encode() not in found


def test_every_answer_says_that_it_is_no_page(here: Site) -> None:
    digest = here.shelf.show("b/open@1").manifest.files[0].digest
    twice = ["/v1/resolve/b/open"] * 2  # the second is from memory
    for path in ("/healthz", "/v1/adapters", *twice, "/nothing", f"/v1/blobs/{digest}", "/metrics"):
        answer = here.ask("GET", path, "root")
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "text/html" not in answer.headers["content-type"]


@pytest.mark.parametrize(
    ("part", "method", "path", "body"),
    [
        ("server/uploads", "PATCH", f"/v1/uploads/{Digest.of(b'x')}", b"x"),
        ("server/uploads", "PUT", f"/v1/blobs/{Digest.of(b'x')}", b"x"),
        ("server/possessions", "PUT", f"/v1/blobs/{Digest.of(b'x')}", b"x"),
        ("staging", "PUT", f"/v1/blobs/{Digest.of(b'x')}", b"x"),
        ("server/once", "POST", "/v1/adapters/b/open/versions/1/evaluations", {"evaluations": [{"metric": "acc", "value": 1}]}),
        ("journal", "PUT", "/v1/adapters/b/open/aliases/x", {"version": 1}),
        ("catalog.db", "GET", "/v1/adapters", None),
        ("catalog.db", "GET", "/api/models", None),
        ("server/announced", "POST", "/api/models/b/open/preupload/main", {"files": [{"path": "adapter_config.json", "size": 1}]}),
    ],
)
def test_where_the_store_lies_is_told_to_nobody(here: Site, part: str, method: str, path: str, body: object) -> None:
    """Also where a part of it is not what it should be; the log has it."""
    place = here.place / part
    place.parent.mkdir(exist_ok=True)
    moved = place.rename(place.with_name("moved")) if place.exists() else None
    if part != "catalog.db":
        place.write_bytes(b"")
    headers = {"Idempotency-Key": "k"} if method == "POST" else {"Upload-Offset": "0", "Upload-Length": "1"}
    answer = here.ask(method, path, "bob", body, headers)
    place.unlink(missing_ok=True)
    if moved is not None:
        moved.rename(place)
    assert answer.status in (500, 503)
    assert str(here.place) not in f"{answer.body!r} {answer.headers}"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1].evil.example", "", "localhost@evil.example"])
def test_a_server_with_names_answers_to_no_other(tmp_path: Path, write_adapter: WriteAdapter, host: str) -> None:
    with site(tmp_path, write_adapter, hosts=("Registry.example",)) as here, here.unchanged():
        for path in ("/v1/adapters", "/api/models/b/open", "/healthz"):
            assert here.ask("GET", path, "root", headers={"Host": host}).status in (400, 421)
        assert here.ask("GET", "/v1/adapters", "root", headers={"Host": "registry.EXAMPLE:8000"}).status == 200


# What comes back

NASTY = [
    "<script>alert(1)</script>", "\x1b]8;;http://evil.example\x07x\x1b]8;;\x07", "a\r\nSet-Cookie: x=1", "=cmd()",
    "\u202eabc", "&#x3c;",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_what_somebody_wrote_comes_back_as_data(here: Site, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tagged = here.ask("PUT", "/v1/adapters/b/open/versions/1/tags", "bob", {"note": text})
    yanked = here.ask("PUT", "/v1/adapters/b/open/versions/1/yank", "bob", {"reason": text})
    for answer in (
        tagged,
        yanked,
        here.ask("GET", "/v1/adapters/b/open/versions/1", "bob"),
        here.ask("GET", f"/v1/adapters/{quote(text)}/x", "bob"),
        here.ask("GET", f"/v1/adapters?text={quote(text)}&tag={quote(text)}", "bob"),
        here.ask("GET", "/v1/events", "bob"),
    ):
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert "set-cookie" not in answer.headers
        assert b"\x1b" not in answer.body
        assert b"\r" not in answer.body
        json.loads(answer.body)
    for record in caplog.records:
        if record.name == "adapters.requests":
            assert len(record.getMessage().splitlines()) == 1
            assert "\x1b" not in record.getMessage()
