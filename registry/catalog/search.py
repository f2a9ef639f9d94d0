"""A query as SQL. Paging is by key, not by offset: a page costs the same wherever it lies.

Every order ends in something unique, so that "behind that row" has one meaning: names by (adapter, number downwards),
everything else by (value, row id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from registry.catalog.apply import version_row
from registry.catalog.bases import names_of
from registry.catalog.resolve import evaluation_of, resolve, versions_of
from registry.catalog.tables import AdapterRow, AliasRow, EvaluationRow, LineageRow, TagRow, TargetRow, VersionRow
from registry.domain.evaluation import usual_direction
from registry.domain.names import Reference
from registry.domain.query import OPERATORS, SORTS, MetricCondition, MetricName, Position, VersionQuery, Visible
from registry.domain.version import Version
from registry.errors import NotFoundError

_COLUMNS = {"created": "created_at", "rank": "rank", "bytes": "bytes", "parameters": "parameters"}
_NULLABLE = frozenset(["rank"])

#: So many versions are looked at in the time of a page.
_FEW = 500


def search(session: Session, query: VersionQuery) -> list[Version]:
    """At most ``query.limit`` versions. Raises NotFoundError if ``query.after`` names what never was a version."""
    metric = MetricName.parse(query.sort) if query.sort and query.sort not in SORTS else None
    bases = names_of(session, query.base) if query.base is not None else []
    few = _few(session, query, bases)
    version = VersionRow if few is None else few
    statement = select(version).where(*_conditions(query, version, bases))
    if metric is not None:
        statement = statement.join(EvaluationRow, col(EvaluationRow.version_id) == version.id).where(*_latest(metric))
    if query.is_by_name:
        forward = not query.reverse
        name, number = col(version.adapter), col(version.number)
        statement = statement.order_by(name if forward else name.desc(), number.desc() if forward else number)
        if query.after is not None:
            last_name, last_number = query.after.keys or _names_of(_last_row(session, query.after))
            beyond = name > last_name if forward else name < last_name
            deeper = number < last_number if forward else number > last_number
            start = name >= last_name if forward else name <= last_name  # implied; where the index is entered
            statement = statement.where(start, or_(beyond, and_(name == last_name, deeper)))
    else:
        column = col(EvaluationRow.value) if metric else col(getattr(version, _COLUMNS[query.sort or ""]))
        falling = (_best_is_high(session, metric) if metric else SORTS[query.sort or ""]) != query.reverse
        row_id = col(EvaluationRow.version_id) if metric else col(version.id)
        statement = statement.order_by(
            column.desc().nulls_last() if falling else column.nulls_last(), row_id.desc() if falling else row_id
        )
        if query.after is not None:
            value, place = query.after.keys or _values_of(session, _last_row(session, query.after), metric, query.sort)
            statement = statement.where(_behind(column, value, row_id, place, falling))
    rows = session.exec(statement.limit(query.limit)).all()
    versions = versions_of(session, rows)
    wanted = metric or (query.metrics[0].name if query.metrics else None)
    return _with_score(session, rows, versions, wanted) if wanted else versions


def _few(session: Session, query: VersionQuery, bases: Sequence[str]) -> type[VersionRow] | None:
    """If one of the conditions leaves few versions: those, to be looked at one by one. Else None: the index of the order
    is walked until the page is full, which is soon.

    SQLite cannot know which of the two is better: it plans before it sees the values.
    """
    for ids in _selective(query, bases):
        count = select(func.count()).select_from(ids.limit(_FEW + 1).subquery())
        if session.exec(count).one() <= _FEW:
            found = select(VersionRow).where(col(VersionRow.id).in_(ids)).limit(_FEW)  # the limit keeps it in one piece
            return aliased(VersionRow, found.subquery())
    return None


def _selective(query: VersionQuery, bases: Sequence[str]) -> Iterator[SelectOfScalar[Any]]:
    """Version ids by each condition that an index answers alone."""
    if query.alias is not None:
        yield (
            select(VersionRow.id)
            .join(
                AliasRow, and_(col(AliasRow.adapter) == VersionRow.adapter, col(AliasRow.number) == VersionRow.number)
            )
            .where(AliasRow.key == query.alias.lower())
        )
    if query.parent is not None:
        yield select(LineageRow.version_id).where(LineageRow.parent == query.parent)
    for key, value in query.tags:
        tagged = select(TagRow.version_id).where(TagRow.key == key)
        yield tagged if value is None else tagged.where(TagRow.value == value)
    for condition in query.metrics:
        yield select(EvaluationRow.version_id).where(*_fulfilled(condition, EvaluationRow))
    for target in query.targets:
        yield select(TargetRow.version_id).where(TargetRow.name == target)
    if not query.is_by_name:
        if bases:
            yield select(VersionRow.id).where(_is_one_of(col(VersionRow.base), bases))
        if query.ranks != (None, None):
            yield select(VersionRow.id).where(*_within(query.ranks, col(VersionRow.rank)))


def _conditions(query: VersionQuery, version: type[VersionRow], bases: Sequence[str]) -> list[ColumnElement[bool]]:
    by_name = query.is_by_name
    found: list[ColumnElement[bool]] = []
    if query.all_versions or query.alias is not None:
        found.append(col(version.deleted).is_(None))
    elif query.parent is not None:
        found += [col(version.deleted).is_(None), col(version.yanked).is_(None)]
    else:
        newest = col(version.newest)
        found.append((newest if by_name else _beside(newest)).is_(True))
    if query.namespace is not None:
        found.append(col(version.adapter).startswith(f"{query.namespace.lower()}/", autoescape=True))
    if query.visible is not None:
        found.append(_is_visible(query.visible, col(version.adapter)))
    if query.text is not None:
        found.append(col(version.adapter).contains(query.text.lower(), autoescape=True))
    if bases:
        base = col(version.base)
        found.append(_is_one_of(base if by_name else _beside(base), bases))
    found += _within(query.ranks, _beside(col(version.rank)))
    if query.peft_type is not None:
        found.append(_beside(col(version.peft_type)) == query.peft_type.upper())
    if query.task_type is not None:
        found.append(_beside(col(version.task_type)) == query.task_type.upper())
    if query.alias is not None:
        here = (col(AliasRow.adapter) == version.adapter, col(AliasRow.number) == version.number)
        found.append(exists().where(*here, col(AliasRow.key) == query.alias.lower()))
    if query.parent is not None:
        found.append(exists().where(col(LineageRow.parent) == query.parent, col(LineageRow.version_id) == version.id))
    for target in query.targets:
        found.append(exists().where(col(TargetRow.name) == target, col(TargetRow.version_id) == version.id))
    for key, value in query.tags:
        tag = exists().where(col(TagRow.version_id) == version.id, col(TagRow.key) == key)
        found.append(tag if value is None else tag.where(col(TagRow.value) == value))
    for condition in query.metrics:
        measured = aliased(EvaluationRow)  # the statement may already be joined to the table, for its order
        fulfilled = _fulfilled(condition, measured, _beside)
        found.append(exists().where(col(measured.version_id) == version.id, *fulfilled))
    return found


def _is_visible(visible: Visible, adapter: Any) -> ColumnElement[bool]:
    ways: list[ColumnElement[bool]] = []
    for pattern in visible.patterns:
        stem = pattern.lower().removesuffix("*")
        ways.append(adapter == stem if stem == pattern.lower() else adapter.startswith(stem, autoescape=True))
    if visible.public:
        ways.append(exists().where(col(AdapterRow.key) == adapter, col(AdapterRow.private).is_(False)))
    return or_(false(), *ways)


def _is_one_of(column: Any, names: Sequence[str]) -> ColumnElement[bool]:
    """A single name is compared for equality, which an index of the order can begin with."""
    condition: ColumnElement[bool] = column == names[0] if len(names) == 1 else column.in_(names)
    return condition


def _beside(column: Any) -> Any:
    """The column, unfit to choose an index by: it is tested on the way, where the rows or the version are given."""
    return func.coalesce(column, column)


def _within(ranks: tuple[int | None, int | None], rank: Any) -> list[ColumnElement[bool]]:
    low, high = ranks
    return [*([rank >= low] if low is not None else ()), *([rank <= high] if high is not None else ())]


def _fulfilled(
    condition: MetricCondition, row: type[EvaluationRow], shown: Callable[[Any], Any] = col
) -> list[ColumnElement[bool]]:
    compare: Callable[[Any, float], Any] = OPERATORS[condition.operator]
    return [*_latest(condition.name, row, shown), compare(shown(row.value), condition.value)]


def _latest(
    name: MetricName, row: type[EvaluationRow] = EvaluationRow, shown: Callable[[Any], Any] = col
) -> list[ColumnElement[bool]]:
    found = [col(row.metric) == name.metric]
    if name.task is None:
        return [*found, shown(row.latest).is_(True)]
    return [*found, col(row.task) == name.task, shown(row.latest_of_task).is_(True)]


def _last_row(session: Session, after: Position) -> VersionRow:
    """Also of a version that was deleted."""
    reference = Reference.parse(after.reference)
    if reference.adapter is not None and reference.number is not None:
        row = version_row(session, reference.adapter.key, reference.number)
        if row is not None:
            return row
    version = resolve(session, reference)
    return session.exec(
        select(VersionRow).where(VersionRow.adapter == version.adapter.key, VersionRow.number == version.number)
    ).one()


def _names_of(row: VersionRow) -> tuple[str, int]:
    return row.adapter, row.number


def _values_of(session: Session, last: VersionRow, metric: MetricName | None, sort: str | None) -> tuple[Any, Any]:
    if metric is None:
        return getattr(last, _COLUMNS[sort or ""]), last.id
    row = session.exec(select(EvaluationRow).where(EvaluationRow.version_id == last.id, *_latest(metric))).one_or_none()
    if row is None:
        raise NotFoundError(f"{last.adapter}@{last.number} has no {metric}, so nothing comes behind it in that order")
    return row.value, last.id


def _behind(column: Any, value: Any, row_id: Any, place: Any, falling: bool) -> ColumnElement[bool]:
    later = row_id < place if falling else row_id > place
    if value is None:
        return and_(column.is_(None), later)
    beyond = or_(column < value if falling else column > value, and_(column == value, later))
    if column.key in _NULLABLE:
        return or_(beyond, column.is_(None))
    return and_(column <= value if falling else column >= value, beyond)  # implied; where the index is entered


def _best_is_high(session: Session, name: MetricName) -> bool:
    """The direction its evaluations state, else the usual one, else upwards."""
    some = select(EvaluationRow.higher_is_better).where(EvaluationRow.metric == name.metric).limit(1000).subquery()
    stated = session.exec(select(some.c.higher_is_better).where(some.c.higher_is_better.is_not(None)).limit(1)).first()
    return usual_direction(name.metric) is not False if stated is None else stated


def _with_score(session: Session, rows: Any, versions: list[Version], name: MetricName) -> list[Version]:
    ids = [row.id for row in rows]
    latest = select(EvaluationRow).where(col(EvaluationRow.version_id).in_(ids), *_latest(name, EvaluationRow, _beside))
    scores = {row.version_id: evaluation_of(row) for row in session.exec(latest)}
    return [replace(version, score=scores.get(row.id)) for row, version in zip(rows, versions, strict=True)]
