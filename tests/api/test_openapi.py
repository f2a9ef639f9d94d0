"""What the API says of itself is true, and changes only on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.examples import COMMAND, EXAMPLES, OPENAPI, documents
from tests.api.test_matrix import TABLE


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], dict[str, object]]:
    return documents(tmp_path_factory.mktemp("scene"))


def test_the_examples_are_what_the_server_answers(today: tuple[dict[str, object], dict[str, object]]) -> None:
    assert json.loads(EXAMPLES.read_text()) == today[0], f"if that is on purpose: {COMMAND}"


def test_the_description_changes_only_on_purpose(today: tuple[dict[str, object], dict[str, object]]) -> None:
    assert json.loads(OPENAPI.read_text()) == today[1], f"if that is on purpose: {COMMAND}"


def test_every_route_says_who_may_and_shows_an_example() -> None:
    paths = json.loads(OPENAPI.read_text())["paths"]
    lacking = []
    for route in TABLE:
        operation = paths[route.path][route.method.lower()]
        if operation.get("x-action") != route.action:
            lacking.append((route.method, route.path, "action"))
        if not operation.get("summary"):
            lacking.append((route.method, route.path, "summary"))
        if route.action is not None and not {"400", "401", "403"} <= operation["responses"].keys():
            lacking.append((route.method, route.path, "refusals"))
        media = operation["responses"].get("200", operation["responses"].get("201", {})).get("content", {})
        if "application/json" in media and media["application/json"].get("schema") and "example" not in media["application/json"]:
            lacking.append((route.method, route.path, "example"))
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None and "example" not in body:
            lacking.append((route.method, route.path, "example of a request"))
    assert lacking == []


def test_no_description_names_a_place_or_a_secret() -> None:
    text = OPENAPI.read_text()
    assert "/tmp/" not in text
    assert str(Path.home()) not in text
