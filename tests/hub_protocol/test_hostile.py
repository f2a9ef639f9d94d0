"""Whatever is sent, the answer is a refusal with a sentence: never a fault of the server, and never half of a change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.api.hub_protocol.commit_body import Changes
from registry.api.hub_protocol.paths import segments
from registry.api.hub_protocol.table import ROUTES, Route
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import Hub, hub, in_files
from tests.hub_protocol.test_rights import path_of

WORDS = [
    "..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "a%0d%0aX-Evil:1", "%ff%fe", "%F0%9F%98%80", "x" * 300,
    "refs%2Fpr%2F1", "-", "v0", "v999999999999999999999", "0" * 40, "sha256:" + "0" * 64, "%25", "CON", "team", "main",
    "%D1%85", "a b", "~", "$(id)", "'--",
]  # fmt: skip
BODIES: list[Any] = [
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"files": 3}', b'{"files": [3]}',
    b'{"files": [{"path": 3}]}', b'{"files": [{"path": "a", "size": -1}]}', b'{"files": [{"path": "a", "size": 1e400}]}',
    b'{"files": [{"path": "../a", "size": 1}]}', b'{"files": [{"path": "a.json", "size": 1, "sample": {"x": 1}}]}',
    b'{"name": 3, "organization": []}', b'{"name": "../x"}', b'{"name": "x", "organization": "..", "type": []}',
    b'{"fromRepo": "team/x", "toRepo": "team/../y"}', b'{"tag": "\\u0000"}', b'{"tag": "../x"}', b'{"startingPoint": 3}',
    b'{"private": "yes", "gated": "auto"}', b'{"operation": "upload", "objects": [3]}',
    b'{"operation": "upload", "objects": [{"oid": "../x", "size": 1}]}', b'{"operation": "download", "objects": []}',
    b'{"content": 3}', b'{"content": "---\\na: &a [*a]\\n---\\n"}', b'{"paths": {"a": 1}}', b'{"oid": "x", "size": "1"}',
    b'{"key": "header", "value": []}', b'{"key": "header", "value": {"summary": "\\u0000\\ud800", "parentCommit": "zz"}}',
    b'{"key": "file", "value": {"path": "../../x", "content": ""}}',
    b'{"key": "file", "value": {"path": "x.txt", "content": "%"}}',
    b'{"key": "file", "value": {"path": "\\ud800.txt", "content": ""}}',
    b'{"key": "lfsFile", "value": {"path": "x", "oid": "../x"}}', b'{"key": "deletedFolder", "value": {"path": "../"}}',
    b'{"key": "else", "value": {"path": "x"}}', b'{"key": 1}',
    b'{"key": "file", "value": {"path": ".git/config", "content": ""}}',
    b'{"key": "file", "value": {"path": "a\\\\b", "content": ""}}',
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    found = hub(tmp_path / "store", pushes_per_minute=1_000_000)
    found.create("team/x")
    found.committed("team/x", in_files(write_one(tmp_path / "a")))
    return found


def state(here: Hub) -> tuple[int, list[str]]:
    return here.registry.catalog.audit(limit=1)[0].sequence, here.files("team/x")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.methods[0]} {route.pattern}")
def test_no_body_is_a_fault(here: Hub, route: Route) -> None:
    path = path_of(route, "main")
    for body in BODIES:
        before = state(here)
        answer = here.ask(route.methods[0], path, content=body)
        assert answer.status_code < 500 or answer.status_code == 501, (body, answer.text)
        if answer.status_code >= 400:
            assert state(here) == before, body
            assert answer.headers.get("x-error-message") or answer.json()
        if not here.registry.catalog.find_adapter(here.registry.adapter("x")):
            here.create("team/x")


def paths(route: Route) -> Iterator[str]:
    parts = [part for part in route.pattern.split("/") if part.startswith("{")]
    for part in parts:
        for word in WORDS:
            yield path_of(Route(route.methods, route.pattern.replace(part, word), route.action, route.handler), "main")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.methods[0]} {route.pattern}")
def test_no_path_is_a_fault(here: Hub, route: Route) -> None:
    body = {} if route.methods[0] in ("GET", "DELETE") else {"content": b"{}"}
    for path in paths(route):
        answer = here.ask(route.methods[0], path, **body)
        assert answer.status_code < 500 or answer.status_code == 501, (path, answer.text)
        assert "x-evil" not in answer.headers


def test_headers_are_one_line(here: Hub) -> None:
    for name in ("a\r\nX-Evil: 1", "ü\u2028", "x" * 5000):
        answer = here.ask("GET", f"/team/x/resolve/{here.sha('team/x')}/{quote(name)}")
        assert answer.status_code == 404
        assert answer.headers["x-error-message"].isascii()
        assert len(answer.headers["x-error-message"]) < 1000
        assert "x-evil" not in answer.headers


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_segments_are_what_was_quoted(parts: list[str]) -> None:
    raw = "/" + "/".join(quote(part, safe="") for part in parts)
    found = segments({"raw_path": raw.encode(), "path": raw})
    if parts[2:3] != ["refs"] and "refs" not in parts:
        assert found == parts


@given(st.dictionaries(st.sampled_from(["a", "a/b", "a/b/c", "b", "b/a"]), st.none(), max_size=5))
def test_nothing_is_a_file_and_a_folder(paths: dict[str, None]) -> None:
    from registry.api.hub_protocol.trees import Entry
    from registry.domain.digest import Digest
    from registry.errors import InvalidInputError

    changes = Changes(files={path: Entry(path, Digest.of(b""), 0) for path in paths})
    clash = any(other.startswith(f"{path}/") for path in paths for other in paths)
    try:
        assert set(changes.applied_to({}, "team/x", "0" * 40)) == set(paths)
        assert not clash
    except InvalidInputError:
        assert clash


def test_a_commit_may_be_large_and_is_bounded(here: Hub) -> None:
    lines = [json.dumps({"key": "header", "value": {"summary": "many"}})]
    lines += [json.dumps({"key": "deletedFile", "value": {"path": f"{n}"}}) for n in range(20_001)]
    assert here.ask("POST", "/api/models/team/x/commit/main", content="\n".join(lines)).status_code == 413
