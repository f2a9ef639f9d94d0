"""The whole API, as its own description allows it to be asked: no answer is a failure of the server."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.connect import connect
from tests.conftest import WriteAdapter, lora_tensors

pytestmark = pytest.mark.slow


def test_no_answer_is_a_failure_of_the_server(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    registry = connect(tmp_path / "registry", namespace="team")
    for name, value in (("a", 0.5), ("b", 0.25)):
        registry.push(write_adapter(name, lora_tensors(value=value)), alias="production", evaluations=["acc=0.5"])
    app = create_app(Settings(tmp_path / "registry", hosts=("testserver",)))
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    failed, asked = [], 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            answer = case.call()
            if answer.status_code >= 500:
                failed.append(f"{case.method} {case.formatted_path} {case.body!r:.200}: {answer.status_code} {answer.text:.300}")

        ask()
    assert failed == []
    assert asked > 500
