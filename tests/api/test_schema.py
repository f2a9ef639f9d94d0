"""The whole API, as its own description allows it to be asked: no answer is a failure of the server, or one that the description
does not have."""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from tests.conftest import WriteAdapter, lora_tensors

pytestmark = pytest.mark.slow
#: Every other request is about something that is there.
THERE: dict[str, Any] = {"ns": "team", "name": "a", "number": 1, "alias": "production", "key": "k"}
#: Last, so that there is something until then.
LAST = ("PUT", "PATCH", "DELETE")


def test_every_answer_is_one_that_the_description_has(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    registry = connect(tmp_path / "registry", namespace="team")
    for name, value in (("a", 0.5), ("b", 0.25)):
        registry.push(write_adapter(name, lora_tensors(value=value)), alias="production", evaluations=["acc=0.5"], tags={"k": "v"})
    text, kept = new_token("admin", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
    with registry.catalog.writing() as writer:
        writer.add_token(kept)
    app = create_app(Settings(tmp_path / "registry", hosts=("testserver",), pushes_per_minute=1_000_000))
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    headers = {"Authorization": f"Bearer {text}"}
    wrong: list[str] = []
    answered: Counter[int] = Counter()

    def ask(operation: Any) -> None:
        known = {int(status) for status in operation.definition.raw["responses"]}
        turns = count()

        @given(case=operation.as_strategy())
        @settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def once(case: schemathesis.Case) -> None:
            if next(turns) % 2 and case.path_parameters:
                case.path_parameters.update({name: value for name, value in THERE.items() if name in case.path_parameters})
            answer = case.call(headers=headers)
            answered[answer.status_code // 100] += 1
            also = {405} if case.method != operation.method.upper() else set()
            if answer.status_code not in known - {503} | also:
                wrong.append(f"{case.method} {case.formatted_path} {case.body!r:.200}: {answer.status_code} {answer.text:.300}")

        once()

    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in sorted(operations, key=lambda each: each.method.upper() in LAST):
        ask(operation)
    assert wrong == []
    assert min(answered[2], answered[4]) > 200, answered
