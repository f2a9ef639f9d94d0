"""HTTP as RFC 9110 has it: HEAD, ranges, conditions, and what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from registry.domain.digest import Digest
from tests.api.sites import Site, site
from tests.conftest import WriteAdapter

ALIAS = "/v1/adapters/b/open/aliases/production"


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found


@pytest.mark.parametrize(
    "path",
    [
        "/", "/docs", "/healthz", "/readyz", "/v1/openapi.json", "/v1/resolve/b/open", "/v1/resolve/b/none", "/v1/adapters",
        "/v1/adapters/b/open", "/v1/events", "/v1/nowhere", "/api/models", "/api/models/b/open", "/api/models/b/open/tree/main",
    ],
)  # fmt: skip
def test_head_is_get_without_a_body(here: Site, path: str) -> None:
    whole, head = here.ask("GET", path, "bob"), here.ask("HEAD", path, "bob")
    changing = ("date", "x-request-id")
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in whole.headers.items() if name not in changing
    }
    assert (head.status, head.body) == (whole.status, b"")
    assert whole.body
    assert whole.status in (200, 404)


def test_head_of_a_stream_ends(here: Site) -> None:
    answer = here.ask("HEAD", "/v1/events", "bob", None, {"Accept": "text/event-stream"})
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")


@pytest.mark.parametrize("path", ["/v1", "/v1/nowhere", "/v1/adapters/b", "/v1/adapters/b/open/"])
def test_what_is_not_there_is_a_problem_document(here: Site, path: str) -> None:
    for method, status in (("GET", 404), ("HEAD", 404), ("POST", 404)):
        answer = here.ask(method, path, "bob")
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")


def test_the_root_says_where_the_description_is(here: Site) -> None:
    for path in ("/", "/docs"):
        described = here.ask("GET", path).json["openapi"]
        assert here.ask("GET", described).json["openapi"].startswith("3.")


@pytest.mark.parametrize(
    ("method", "value", "status", "length"),
    [
        ("GET", "bytes=0-4", 206, "5"),
        ("GET", "BYTES=0-4", 206, "5"),
        ("GET", "lines=0-4", 200, None),
        ("GET", "bytes=9-4", 416, None),
        ("HEAD", "bytes=0-4", 200, None),
        ("HEAD", "bytes=9-4", 200, None),
    ],
)
def test_ranges_are_of_bytes_and_of_get(here: Site, method: str, value: str, status: int, length: str | None) -> None:
    entry = here.shelf.show("b/open@1").manifest.files[0]
    answer = here.ask(method, f"/v1/blobs/{entry.digest}", "bob", None, {"Range": value})
    assert answer.status == status
    if status != 416:
        assert answer.headers["content-length"] == (length or str(entry.size))
        assert ("content-range" in answer.headers) == (status == 206)


@pytest.mark.parametrize(
    ("at", "name", "value", "status"),
    [
        (None, "If-Match", "*", 412),
        (None, "If-Match", '"none"', 200),
        (None, "If-Match", '"1"', 412),
        (None, "If-None-Match", "*", 200),
        (1, "If-Match", "*", 200),
        (1, "If-Match", '"7", "1"', 200),
        (1, "If-Match", '"7","2"', 412),
        (1, "If-Match", '"none", "1"', 200),
        (1, "If-Match", 'W/"1"', 412),
        (1, "If-Match", '"x"', 412),
        (1, "If-Match", '"2", ,"x"', 412),
        (1, "If-Match", '"01"', 412),
        (1, "If-Match", ",", 412),
        (1, "If-Match", '"1",', 200),
        (1, "If-Match", ', "x", "1"', 200),
        (1, "If-Match", '"1', 400),
        (1, "If-Match", "1", 200),
        (1, "If-Match", "2, stale", 412),
        (1, "If-Match", "1 2", 400),
        (1, "If-None-Match", "*", 412),
        (1, "If-None-Match", '"1"', 412),
        (1, "If-None-Match", '"2"', 200),
    ],
)
def test_an_alias_moves_if_the_conditions_hold(here: Site, at: int | None, name: str, value: str, status: int) -> None:
    if at is not None:
        here.shelf.set_alias("b/open", "production", at)
    answer = here.ask("PUT", ALIAS, "bob", {"version": 2}, {name: value})
    assert answer.status == status, answer.body
    now = 2 if status == 200 else at
    assert here.shelf.aliases("b/open").get("production") == now
    if status != 200:
        assert here.ask("DELETE", ALIAS, "bob", None, {name: value}).status == status
        promotion = {"version": 2, "minimum": ["acc>=0"]}
        assert here.ask("POST", f"{ALIAS}/promote", "bob", promotion, {name: value}).status == status
        assert here.shelf.aliases("b/open").get("production") == now


@pytest.mark.parametrize(
    ("method", "path", "name", "values", "status"),
    [
        ("PUT", ALIAS, "If-Match", ['"9"', '"1"'], 200),
        ("PUT", ALIAS, "If-Match", ['"1"', '"9"'], 200),
        ("PUT", ALIAS, "If-Match", ['"9"', '"8"'], 412),
        ("PUT", ALIAS, "If-None-Match", ['"9"', '"1"'], 412),
        ("PUT", ALIAS, "If-None-Match", ['"1"', '"9"'], 412),
        ("PUT", ALIAS, "If-None-Match", ['"9"', '"8"'], 200),
        ("GET", ALIAS, "If-None-Match", ['"9"', '"1"'], 304),
        ("GET", ALIAS, "If-None-Match", ['"1"', '"9"'], 304),
        ("GET", ALIAS, "If-None-Match", ['"9"', '"8"'], 200),
        ("GET", "blob", "If-None-Match", ['"9"', "blob"], 304),
    ],
)
def test_several_lines_of_a_condition_are_one_list(
    here: Site, method: str, path: str, name: str, values: list[str], status: int
) -> None:
    """RFC 9110, 5.3."""
    here.shelf.set_alias("b/open", "production", 1)
    digest = here.shelf.show("b/open@1").manifest.files[0].digest
    connection = HTTPConnection("127.0.0.1", here.port, timeout=30)
    connection.putrequest(method, path.replace("blob", f"/v1/blobs/{digest}"))
    body = b'{"version": 2}' if method == "PUT" else b""
    sent = {"Authorization": f"Bearer {here.tokens['bob']}", "Content-Type": "application/json", "Content-Length": len(body)}
    for key, value in [*sent.items(), *((name, each.replace("blob", f'"{digest}"')) for each in values)]:
        connection.putheader(key, str(value))
    connection.endheaders(body)
    answer = connection.getresponse()
    assert answer.status == status, answer.read()
    connection.close()
    assert here.shelf.aliases("b/open")["production"] == (2 if (method, status) == ("PUT", 200) else 1)


ADAPTER = "/v1/adapters/b/open"
VERSION = f"{ADAPTER}/versions/1"
WHY = {"reason": "a test"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", ADAPTER, {"private": True}),
        ("DELETE", ADAPTER, WHY),
        ("DELETE", VERSION, WHY),
        ("POST", f"{ADAPTER}/versions", {"files": [{"path": "x", "digest": "sha256:" + "0" * 64}]}),
        ("POST", f"{VERSION}/evaluations", {"evaluations": [{"metric": "acc", "value": 1.0}]}),
        ("PUT", f"{VERSION}/tags", {"k": "w"}),
        ("DELETE", f"{VERSION}/tags/k", None),
        ("PUT", f"{VERSION}/yank", WHY),
        ("DELETE", f"{VERSION}/yank", None),
        ("PUT", "/v1/base-aliases/x/y", {"canonical": "z/w"}),
        ("POST", "/v1/tokens", {"name": "x", "actions": ["read"]}),
        ("POST", "/v1/store/gc", {"dry_run": False}),
    ],
)
@pytest.mark.parametrize(("name", "value"), [("If-Match", '"stale"'), ("If-Match", ",")])
def test_nothing_is_done_under_a_condition_that_does_not_hold(
    here: Site, method: str, path: str, body: object, name: str, value: str
) -> None:
    """RFC 9110, 13.1.1."""
    with here.unchanged():
        answer = here.ask(method, path, "root", body, {name: value})
        assert (answer.status, answer.code) == (412, "precondition-failed")
        assert answer.json["exit_code"] == 5
        assert here.ask(method, path, "root", body, {name: '"stale'}).code == "invalid-etag"
        assert here.ask(method, path, None, body, {name: value}).status == 401


def test_a_change_is_made_where_its_conditions_hold(here: Site) -> None:
    etag = here.ask("GET", ADAPTER, "root").headers["etag"]
    for name, value, status in (
        ("If-None-Match", "*", 412),
        ("If-None-Match", f"W/{etag}", 412),
        ("If-Match", f"W/{etag}", 412),
        ("If-Match", f'"a,b", {etag},', 200),
        ("If-Match", etag, 412),  # it is another now
        ("If-Match", "*", 200),
        ("If-None-Match", '"stale"', 200),
    ):
        assert here.ask("PUT", ADAPTER, "root", {"private": True}, {name: value}).status == status, (name, value)
    new = "/v1/adapters/b/new"
    for value, status in (("*", 200), ("*", 412)):
        assert here.ask("PUT", new, "root", {"private": False}, {"If-None-Match": value}).status == status
    assert here.ask("PUT", "/v1/adapters/b/none", "root", {"private": False}, {"If-Match": "*"}).status == 412
    assert here.ask("DELETE", new, "root", WHY, {"If-Match": here.ask("GET", new, "root").headers["etag"]}).status == 204


def test_a_blob_is_sent_where_the_conditions_hold(here: Site) -> None:
    path = f"/v1/blobs/{Digest.of(b'new')}"
    octets = {"Content-Type": "application/octet-stream"}
    for name, value, status in (
        ("If-Match", "*", 412), ("If-None-Match", "*", 201), ("If-None-Match", "*", 412), ("If-Match", "*", 200)
    ):  # fmt: skip
        assert here.ask("PUT", path, "bob", b"new", {**octets, name: value}).status == status, (name, value)


@pytest.mark.parametrize("path", [ADAPTER, VERSION, "/v1/resolve/b/open", ALIAS, "blob", "/api/models/b/open"])
def test_a_look_has_conditions_too(here: Site, path: str) -> None:
    here.shelf.set_alias("b/open", "production", 1)
    path = f"/v1/blobs/{here.shelf.show('b/open@1').manifest.files[0].digest}" if path == "blob" else path
    etag = here.ask("GET", path, "bob").headers["etag"]
    refused = [('"stale"', 412), ("stale", 412), (f"W/{etag}", 412), ('"stale', 400)]
    for value, status in [*refused, (etag, 200), (f'"stale",{etag}', 200), ("*", 200)]:
        for method in ("GET", "HEAD"):
            assert here.ask(method, path, "bob", None, {"If-Match": value}).status == status, (method, value)
    for method in ("GET", "HEAD"):
        assert here.ask(method, path, "bob", None, {"If-None-Match": etag}).status == 304, method


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/resolve/b/open?alais=prod", "'alais': did you mean alias?"),
        ("/v1/adapters?namespcae=b", "'namespcae': did you mean namespace?"),
        ("/v1/adapters?limit=5&Limit=1", "'Limit': did you mean limit?"),
        ("/v1/adapters/b/open/versions?zzz=1", "'zzz': it takes before, limit"),
        ("/v1/adapters/b/open?version=1", "'version': it takes none"),
        ("/v1/events?aftr=1", "'aftr': did you mean after?"),
        ("/v1/best?by=acc&tagg=k", "'tagg': did you mean tag?"),
        ("/v1/compare?rref=b/open@1", "'rref': did you mean ref?"),
    ],
)
def test_a_parameter_that_is_misspelt_is_refused(here: Site, path: str, said: str) -> None:
    for method in ("GET", "HEAD"):
        answer = here.ask(method, path, "bob")
        assert answer.status == 400
    answer = here.ask("GET", path, "bob")
    assert (answer.code, answer.json["exit_code"]) == ("unknown-parameter", 3)
    assert said in answer.json["detail"]


def test_a_token_in_an_address_is_refused_as_one(here: Site) -> None:
    assert here.ask("GET", "/v1/adapters?token=x", "bob").code == "token-in-url"
