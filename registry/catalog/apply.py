"""What an event does to the tables. The same code runs when it happens and when the journal is replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, or_, update
from sqlmodel import Session, col, select

from registry.catalog import adapters
from registry.catalog.bases import ADD_BASE, ALIAS_BASE, add_base, alias_base
from registry.catalog.commits import COMMIT, DROP_DRAFTS, add_commit, drop_drafts, forget_commits
from registry.catalog.events import Event
from registry.catalog.tables import (
    AliasRow,
    AuditRow,
    BlobRow,
    EvaluationRow,
    LineageRow,
    TagRow,
    TargetRow,
    VersionRow,
)
from registry.catalog.tokens import ADD_TOKEN, REVOKE_TOKEN, add_token, revoke_token
from registry.domain.manifest import Manifest
from registry.domain.summary import summary_of

PUBLISH = "publish"
MOVE_ALIAS = "alias"
SET_TAGS = "tag"
REMOVE_TAGS = "untag"
YANK = "yank"
UNYANK = "unyank"
DELETE = "delete"
EVALUATE = "evaluate"
COLLECT = "collect"

#: Columns of a version that come from its manifest.
_DESCRIPTION = ("base", "peft_type", "task_type", "rank", "parameters", "bytes", "tensor_identity", "summary")

Facts = Mapping[str, Any]


def apply(session: Session, event: Event, manifest: Manifest | None = None) -> None:
    """Enter the event into the audit and carry it out. ``manifest`` belongs to a ``publish`` event; without it (its blob
    is gone) the version's number and digest are kept and it is found by name only."""
    session.add(
        AuditRow(
            sequence=event.sequence,
            action=event.action,
            adapter=event.adapter.lower() if event.adapter else None,
            body=event.body,
            hash=event.hash,
        )
    )
    if event.action == PUBLISH:
        _publish(session, event, manifest)
    elif event.action == ADD_BASE:
        add_base(session, event.sequence, event.facts)
    elif event.action == ALIAS_BASE:
        alias_base(session, event.facts)
    elif event.action == ADD_TOKEN:
        add_token(session, event.at, event.facts)
    elif event.action == REVOKE_TOKEN:
        revoke_token(session, event.at, event.facts)
    elif event.action == adapters.CREATE:
        adapters.create(session, event.adapter or "", event.facts)
    elif event.action == COMMIT:
        key = (event.adapter or "").lower()
        add_commit(session, event.sequence, event.at, event.actor, key, event.facts)
    elif event.action != COLLECT:
        _CHANGES[event.action](session, (event.adapter or "").lower(), event.facts)
    session.flush()


def version_row(session: Session, adapter: str, number: int) -> VersionRow | None:
    return session.exec(
        select(VersionRow).where(VersionRow.adapter == adapter, VersionRow.number == number)
    ).one_or_none()


def live_numbers(session: Session, adapter: str) -> list[int]:
    """Of the versions that are not deleted."""
    numbers = select(VersionRow.number).where(VersionRow.adapter == adapter, col(VersionRow.deleted).is_(None))
    return list(session.exec(numbers.order_by(col(VersionRow.number))))


def summary_text(manifest: Manifest, facts: Facts) -> str:
    known = {key: facts.get(key) for key in ("fingerprint", "weights_fingerprint")}
    return json.dumps(summary_of(manifest, **known).document(), sort_keys=True)


def _publish(session: Session, event: Event, manifest: Manifest | None) -> None:
    facts: Facts = event.facts
    shown = event.adapter or ""
    key, number = shown.lower(), facts["version"]
    adapter = adapters.adapter_row(session, shown)
    adapter.next_number = max(adapter.next_number, number + 1)
    session.flush()
    row = VersionRow(
        adapter=key,
        number=number,
        digest=facts["digest"],
        created_at=event.at,
        note=facts["note"],
        findings=json.dumps(facts["findings"], sort_keys=True),
    )
    digests = {row.digest}
    if manifest is not None:
        base = manifest.base_model
        row.base = (base.name or "").lower() or None
        row.peft_type = manifest.peft_type.upper()
        row.task_type = manifest.task_type.upper() if manifest.task_type else None
        row.rank = manifest.rank
        row.parameters = manifest.parameters
        row.bytes = manifest.bytes
        row.tensor_identity = manifest.tensor_identity
        row.summary = summary_text(manifest, facts)
        digests.update(entry.digest for entry in manifest.files)
    session.add(row)
    session.flush()
    version_id = _id(row)
    session.add_all(BlobRow(digest=digest, version_id=version_id) for digest in sorted(digests))
    if manifest is not None:
        session.add_all(TargetRow(name=name, version_id=version_id) for name in manifest.target_modules)
        session.add_all(LineageRow(parent=parent, version_id=version_id) for parent in manifest.parents)
    _mark_newest(session, key)


def _move_alias(session: Session, adapter: str, facts: Facts) -> None:
    row = session.get(AliasRow, (adapter, facts["alias"].lower()))
    if facts["after"] is None:
        if row is not None:
            session.delete(row)
    elif row is None:
        session.add(AliasRow(adapter=adapter, key=facts["alias"].lower(), name=facts["alias"], number=facts["after"]))
    else:
        row.number = facts["after"]


def _set_tags(session: Session, adapter: str, facts: Facts) -> None:
    version_id = _id(_require(session, adapter, facts))
    for key, value in facts["tags"].items():
        session.merge(TagRow(version_id=version_id, key=key, value=value))


def _remove_tags(session: Session, adapter: str, facts: Facts) -> None:
    version_id = _id(_require(session, adapter, facts))
    session.exec(delete(TagRow).where(col(TagRow.version_id) == version_id, col(TagRow.key).in_(facts["keys"])))


def _yank(session: Session, adapter: str, facts: Facts) -> None:
    _require(session, adapter, facts).yanked = facts.get("reason")
    _mark_newest(session, adapter)


def _delete(session: Session, adapter: str, facts: Facts) -> None:
    """A tombstone stays: the number is never used again. What only finds or describes the version goes, so that the row
    is the same with and without its manifest, which a collector may take from now on."""
    row = _require(session, adapter, facts)
    row.deleted = facts["reason"]
    for column in _DESCRIPTION:
        setattr(row, column, VersionRow.model_fields[column].default)
    for table in (TargetRow, LineageRow, BlobRow, TagRow, EvaluationRow):
        session.exec(delete(table).where(col(table.version_id) == _id(row)))
    forget_commits(session, adapter, row.number)
    _mark_newest(session, adapter)


def _evaluate(session: Session, adapter: str, facts: Facts) -> None:
    version_id = _id(_require(session, adapter, facts))
    if facts.get("raw"):
        session.merge(BlobRow(digest=facts["raw"], version_id=version_id))
    documents: list[dict[str, Any]] = facts["evaluations"]
    newest = {document["metric"]: index for index, document in enumerate(documents)}
    newest_of_task = {(document["metric"], document["task"]): index for index, document in enumerate(documents)}
    before = session.exec(
        select(EvaluationRow).where(
            EvaluationRow.version_id == version_id,
            or_(col(EvaluationRow.latest).is_(True), col(EvaluationRow.latest_of_task).is_(True)),
        )
    )
    for row in before:
        row.latest = row.latest and row.metric not in newest
        row.latest_of_task = row.latest_of_task and (row.metric, row.task) not in newest_of_task
    session.flush()
    rows = [
        {
            **document,
            "version_id": version_id,
            "latest": newest[document["metric"]] == index,
            "latest_of_task": newest_of_task[document["metric"], document["task"]] == index,
        }
        for index, document in enumerate(documents)
    ]
    session.execute(insert(EvaluationRow), rows)


_CHANGES: dict[str, Callable[[Session, str, Facts], None]] = {
    MOVE_ALIAS: _move_alias,
    SET_TAGS: _set_tags,
    REMOVE_TAGS: _remove_tags,
    YANK: _yank,
    UNYANK: lambda session, adapter, facts: _yank(session, adapter, {**facts, "reason": None}),
    DELETE: _delete,
    EVALUATE: _evaluate,
    DROP_DRAFTS: drop_drafts,
    adapters.SET_PRIVATE: adapters.set_private,
    adapters.REMOVE: lambda session, adapter, _facts: adapters.remove(session, adapter),
    adapters.RENAME: adapters.rename,
}


def _mark_newest(session: Session, adapter: str) -> None:
    session.flush()
    newest: int | None = session.exec(
        select(func.max(VersionRow.number)).where(
            VersionRow.adapter == adapter, col(VersionRow.yanked).is_(None), col(VersionRow.deleted).is_(None)
        )
    ).one()
    session.exec(
        update(VersionRow)
        .where(col(VersionRow.adapter) == adapter, col(VersionRow.newest).is_(True), col(VersionRow.number) != newest)
        .values(newest=False)
    )
    session.exec(
        update(VersionRow)
        .where(col(VersionRow.adapter) == adapter, col(VersionRow.number) == newest)
        .values(newest=True)
    )


def _require(session: Session, adapter: str, facts: Facts) -> VersionRow:
    row = version_row(session, adapter, facts["version"])
    if row is None:
        raise LookupError(f"{adapter}@{facts['version']} is not in the catalog")
    return row


def _id(row: VersionRow) -> int:
    assert row.id is not None  # noqa: S101 - for the type checker: a flushed row has one
    return row.id


def replay(session: Session, events: Sequence[Event], manifest_of: Callable[[str], Manifest | None]) -> None:
    """Carry out a whole history on empty tables. ``manifest_of`` answers None for a manifest that is gone."""
    for event in events:
        apply(session, event, manifest_of(str(event.facts["digest"])) if event.action == PUBLISH else None)
