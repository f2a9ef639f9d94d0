"""Which score of a version is the newest, however they came, and what it costs to add many."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlmodel import select

from registry.catalog.sql import SqlCatalog
from registry.catalog.tables import EvaluationRow
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, Reference
from tests.catalog.conftest import manifest, memory_catalog

NAME = AdapterName.parse("local/x")
Score = tuple[str, str | None, float]
SCORES = st.tuples(st.sampled_from(["acc", "f1"]), st.sampled_from([None, "a", "b"]), st.sampled_from([0.25, 0.5]))


def with_versions(count: int) -> SqlCatalog:
    catalog = memory_catalog()
    with catalog.writing() as writer:
        for number in range(count):
            writer.add_version(NAME, manifest(number))
    return catalog


def add(catalog: SqlCatalog, number: int, scores: Sequence[Score]) -> None:
    with catalog.writing() as writer:
        version = writer.resolve(Reference(NAME, number=number))
        writer.add_evaluations(version, [Evaluation(metric, value, task=task) for metric, task, value in scores])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 2), st.lists(SCORES, min_size=1, max_size=6)), max_size=5))
def test_the_newest_is_the_last_that_came(batches: list[tuple[int, list[Score]]]) -> None:
    """By a loop over all that came, version by version."""
    catalog = with_versions(2)
    came: dict[int, list[Score]] = {1: [], 2: []}
    for number, scores in batches:
        add(catalog, number, scores)
        came[number] += scores
    with catalog._reading() as session:
        rows = session.exec(select(EvaluationRow).order_by(EvaluationRow.id)).all()
    for number, scores in came.items():
        found = [row for row in rows if row.version_id == number]
        assert [(row.metric, row.task, row.value) for row in found] == scores
        for index, row in enumerate(found):
            later = scores[index + 1 :]
            assert row.latest == all(metric != row.metric for metric, _, _ in later)
            assert row.latest_of_task == all((metric, task) != (row.metric, row.task) for metric, task, _ in later)


@pytest.mark.parametrize("count", [100, 1000])
def test_the_statements_for_many_scores_are_few(count: int) -> None:
    catalog = with_versions(1)
    add(catalog, 1, [("acc", f"t{index}", 0.5) for index in range(count)])
    statements: list[str] = []
    event.listen(catalog._engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    add(catalog, 1, [("acc", f"t{index}", 0.75) for index in range(count)])
    assert sum("evaluation" in statement for statement in statements) < 10
