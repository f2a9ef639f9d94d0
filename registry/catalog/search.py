"""A query as SQL. Paging is by key, not by offset: a page costs the same wherever it lies.

Every order ends in something unique, so that "behind that row" has one meaning: names by (adapter, number downwards),
everything else by (value, row id).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from registry.catalog.resolve import evaluation_of, resolve, versions_of
from registry.catalog.tables import AliasRow, EvaluationRow, TagRow, TargetRow, VersionRow
from registry.domain.evaluation import usual_direction
from registry.domain.names import Reference
from registry.domain.query import OPERATORS, SORTS, MetricCondition, MetricName, VersionQuery
from registry.domain.version import Version
from registry.errors import NotFoundError

_COLUMNS: dict[str, Any] = {
    "created": VersionRow.created_at,
    "rank": VersionRow.rank,
    "bytes": VersionRow.bytes,
    "parameters": VersionRow.parameters,
}


def search(session: Session, query: VersionQuery) -> list[Version]:
    """At most ``query.limit`` versions. Raises NotFoundError if ``query.after`` is not a version."""
    metric = MetricName.parse(query.sort) if query.sort and query.sort not in SORTS else None
    statement = select(VersionRow).where(*_conditions(query))
    if query.alias is not None:
        statement = statement.join(
            AliasRow,
            and_(col(AliasRow.adapter) == VersionRow.adapter, col(AliasRow.number) == VersionRow.number),
        ).where(AliasRow.key == query.alias.lower())
    if metric is not None:
        statement = statement.join(EvaluationRow, col(EvaluationRow.version_id) == VersionRow.id).where(
            *_latest(metric)
        )
    last = _last_row(session, query)
    if query.sort in (None, "name"):
        forward = not query.reverse
        name, number = col(VersionRow.adapter), col(VersionRow.number)
        statement = statement.order_by(name if forward else name.desc(), number.desc() if forward else number)
        if last is not None:
            beyond = name > last.adapter if forward else name < last.adapter
            deeper = number < last.number if forward else number > last.number
            statement = statement.where(or_(beyond, and_(name == last.adapter, deeper)))
    else:
        column = col(EvaluationRow.value) if metric else col(_COLUMNS[query.sort or ""])
        falling = (_best_is_high(session, metric) if metric else SORTS[query.sort or ""]) != query.reverse
        statement = statement.order_by(
            column.desc().nulls_last() if falling else column.nulls_last(),
            col(VersionRow.id).desc() if falling else col(VersionRow.id),
        )
        if last is not None:
            statement = statement.where(_behind(column, _value(session, last, metric, query.sort), last.id, falling))
    rows = session.exec(statement.limit(query.limit)).all()
    versions = versions_of(session, rows)
    wanted = metric or (query.metrics[0].name if query.metrics else None)
    return _with_score(session, rows, versions, wanted) if wanted else versions


def _conditions(query: VersionQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if not query.all_versions and query.alias is None:
        found.append(col(VersionRow.newest).is_(True))
    else:
        found.append(col(VersionRow.deleted).is_(None))
    if query.text is not None:
        found.append(col(VersionRow.adapter).contains(query.text.lower(), autoescape=True))
    if query.base is not None:
        found.append(col(VersionRow.base) == query.base.lower())
    low, high = query.ranks
    if low is not None:
        found.append(col(VersionRow.rank) >= low)
    if high is not None:
        found.append(col(VersionRow.rank) <= high)
    if query.peft_type is not None:
        found.append(col(VersionRow.peft_type) == query.peft_type.upper())
    if query.task_type is not None:
        found.append(col(VersionRow.task_type) == query.task_type.upper())
    for target in query.targets:
        found.append(exists().where(col(TargetRow.name) == target, col(TargetRow.version_id) == VersionRow.id))
    for key, value in query.tags:
        tag = exists().where(col(TagRow.version_id) == VersionRow.id, col(TagRow.key) == key)
        found.append(tag if value is None else tag.where(col(TagRow.value) == value))
    found.extend(_condition(condition) for condition in query.metrics)
    return found


def _condition(condition: MetricCondition) -> ColumnElement[bool]:
    measured = aliased(EvaluationRow)  # the statement may already be joined to the table, for its order
    return exists().where(
        col(measured.version_id) == VersionRow.id,
        *_latest(condition.name, measured),
        OPERATORS[condition.operator](col(measured.value), condition.value),  # type: ignore[arg-type]
    )


def _latest(name: MetricName, row: type[EvaluationRow] = EvaluationRow) -> list[ColumnElement[bool]]:
    found = [col(row.metric) == name.metric]
    if name.task is None:
        return [*found, col(row.latest).is_(True)]
    return [*found, col(row.task) == name.task, col(row.latest_of_task).is_(True)]


def _last_row(session: Session, query: VersionQuery) -> VersionRow | None:
    if query.after is None:
        return None
    version = resolve(session, Reference.parse(query.after))
    return session.exec(
        select(VersionRow).where(VersionRow.adapter == version.adapter.key, VersionRow.number == version.number)
    ).one()


def _value(session: Session, last: VersionRow, metric: MetricName | None, sort: str | None) -> Any:
    if metric is None:
        return getattr(last, _COLUMNS[sort or ""].key)
    row = session.exec(select(EvaluationRow).where(EvaluationRow.version_id == last.id, *_latest(metric))).one_or_none()
    if row is None:
        raise NotFoundError(f"{last.adapter}@{last.number} has no {metric}, so nothing comes behind it in that order")
    return row.value


def _behind(column: Any, value: Any, row_id: int | None, falling: bool) -> ColumnElement[bool]:
    later = col(VersionRow.id) < row_id if falling else col(VersionRow.id) > row_id
    if value is None:
        return and_(column.is_(None), later)
    return or_(column < value if falling else column > value, and_(column == value, later), column.is_(None))


def _best_is_high(session: Session, name: MetricName) -> bool:
    """The direction its evaluations state, else the usual one, else upwards."""
    stated = session.exec(
        select(EvaluationRow.higher_is_better)
        .where(EvaluationRow.metric == name.metric, col(EvaluationRow.higher_is_better).is_not(None))
        .limit(1)
    ).first()
    return usual_direction(name.metric) is not False if stated is None else stated


def _with_score(session: Session, rows: Any, versions: list[Version], name: MetricName) -> list[Version]:
    ids = [row.id for row in rows]
    scores = {
        row.version_id: evaluation_of(row)
        for row in session.exec(select(EvaluationRow).where(col(EvaluationRow.version_id).in_(ids), *_latest(name)))
    }
    return [replace(version, score=scores.get(row.id)) for row, version in zip(rows, versions, strict=True)]
