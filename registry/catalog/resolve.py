"""From a reference to a version, and from a row to a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from sqlalchemy import func
from sqlmodel import Session, col, select

from registry.catalog.tables import AdapterRow, AliasRow, EvaluationRow, TagRow, VersionRow
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding, Severity
from registry.domain.names import AdapterName, Namespace, Reference, Word
from registry.domain.summary import read_summary
from registry.domain.version import Version
from registry.errors import CorruptionError, InvalidNameError, NotFoundError

#: Before and after an unknown name, in the order of the alphabet, the most similar one is looked for.
_NEIGHBOURS = 100


class UnknownAdapterError(NotFoundError):
    """The similar name is looked for when somebody reads the hint: a server, which must not tell it, never does."""

    default_code = "unknown-adapter"

    def __init__(self, adapter: AdapterName, known: Sequence[str]) -> None:
        self._asked, self._known = adapter.key, known
        super().__init__(f"there is no adapter {adapter}")

    @property
    def hint(self) -> str | None:
        names = {key.partition("/")[2]: key for key in self._known}
        near = [names[name] for name in get_close_matches(self._asked.partition("/")[2], list(names), n=1, cutoff=0.75)]
        return self._hint or (f"did you mean {near[0]}?" if near else "`adapters list` shows what there is")

    @hint.setter
    def hint(self, value: str | None) -> None:
        self._hint = value


def resolve(session: Session, reference: Reference) -> Version:
    """Raises :class:`NotFoundError`, with the nearest name if there is one."""
    return version_of(session, _row(session, reference))


def find_version(session: Session, adapter: AdapterName, digest: Digest) -> VersionRow | None:
    """The adapter's version with this manifest, if it has one that is not deleted."""
    return session.exec(
        select(VersionRow).where(
            VersionRow.adapter == adapter.key, VersionRow.digest == digest, col(VersionRow.deleted).is_(None)
        )
    ).first()


def version_of(session: Session, row: VersionRow) -> Version:
    return versions_of(session, [row])[0]


def versions_of(session: Session, rows: Sequence[VersionRow]) -> list[Version]:
    """Values for a page of rows, with aliases, tags and the latest score, in a handful of queries."""
    keys, ids = {row.adapter for row in rows}, [row.id for row in rows]
    names = {
        row.key: AdapterName(Namespace(row.namespace), Word(row.name))
        for row in session.exec(select(AdapterRow).where(col(AdapterRow.key).in_(keys)))
    }
    aliases: dict[tuple[str, int], list[str]] = {}
    for alias in session.exec(select(AliasRow).where(col(AliasRow.adapter).in_(keys)).order_by(AliasRow.key)):
        aliases.setdefault((alias.adapter, alias.number), []).append(alias.name)
    tags: dict[int | None, dict[str, str]] = {}
    for tag in session.exec(select(TagRow).where(col(TagRow.version_id).in_(ids)).order_by(TagRow.key)):
        tags.setdefault(tag.version_id, {})[tag.key] = tag.value
    scores = {
        row.version_id: evaluation_of(row)
        for row in session.exec(
            select(EvaluationRow)
            .where(col(EvaluationRow.version_id).in_(ids), col(EvaluationRow.latest).is_(True))
            .order_by(col(EvaluationRow.id))
        )
    }
    return [
        _version(row, names, aliases.get((row.adapter, row.number), []), tags.get(row.id, {}), scores) for row in rows
    ]


def _version(
    row: VersionRow,
    names: Mapping[str, AdapterName],
    aliases: Sequence[str],
    tags: Mapping[str, str],
    scores: Mapping[int, Evaluation],
) -> Version:
    try:
        return Version(
            adapter=names[row.adapter],
            number=row.number,
            digest=Digest(row.digest),
            created_at=row.created_at,
            summary=read_summary(json.loads(row.summary)),
            note=row.note,
            yanked=row.yanked,
            aliases=tuple(aliases),
            tags=tags,
            findings=tuple(
                Finding(**{**finding, "severity": Severity(finding["severity"])})
                for finding in json.loads(row.findings)
            ),
            score=scores.get(row.id or 0),
            place=row.id,
        )
    except (InvalidNameError, ValueError, TypeError, KeyError) as error:
        raise CorruptionError(
            f"the catalog's entry for {row.adapter}@{row.number} was changed: {error}",
            hint="run `adapters doctor`, then `adapters rebuild`",
        ) from error


def aliases_of(session: Session, adapter: AdapterName) -> dict[str, int]:
    rows = session.exec(select(AliasRow).where(AliasRow.adapter == adapter.key).order_by(AliasRow.key))
    return {row.name: row.number for row in rows}


def evaluations_of(session: Session, version: Version) -> list[Evaluation]:
    """In the order in which they were added."""
    rows = session.exec(
        select(EvaluationRow)
        .join(VersionRow, col(VersionRow.id) == EvaluationRow.version_id)
        .where(VersionRow.adapter == version.adapter.key, VersionRow.number == version.number)
        .order_by(col(EvaluationRow.id))
    )
    return [evaluation_of(row) for row in rows]


def evaluation_of(row: EvaluationRow) -> Evaluation:
    return Evaluation(
        suite=row.suite,
        task=row.task,
        metric=row.metric,
        value=row.value,
        stderr=row.stderr,
        n=row.n,
        higher_is_better=row.higher_is_better,
        filter=row.filter,
        split=row.split,
        source=row.source,
        at=row.at,
    )


def _row(session: Session, reference: Reference) -> VersionRow:
    if reference.adapter is None:
        return _by_digest(session, reference.digest_start or "")
    adapter = reference.adapter
    entry = session.get(AdapterRow, adapter.key)
    if entry is None or entry.removed:
        raise UnknownAdapterError(adapter, _neighbours(session, adapter))
    number = reference.number
    if reference.alias is not None:
        alias = session.get(AliasRow, (adapter.key, reference.alias.key))
        if alias is None:
            known = session.exec(select(AliasRow.name).where(AliasRow.adapter == adapter.key)).all()
            raise NotFoundError(
                f"{adapter} has no alias {reference.alias}",
                code="unknown-alias",
                hint=f"it has {', '.join(sorted(known))}" if known else "it has none yet: adapters alias set",
            )
        number = alias.number
    versions = select(VersionRow).where(VersionRow.adapter == adapter.key)
    if number is None:
        row = session.exec(versions.where(col(VersionRow.newest).is_(True))).one_or_none()
        if row is None and entry.next_number == 1:
            raise NotFoundError(
                f"{adapter} has no version yet", code="unknown-version", hint=f"adapters push DIR --name {adapter}"
            )
        if row is None:
            raise NotFoundError(
                f"every version of {adapter} is yanked or deleted",
                code="unknown-version",
                hint=_exact(session, adapter),
            )
        return row
    row = session.exec(versions.where(VersionRow.number == number)).one_or_none()
    if row is None:
        numbers = session.exec(select(VersionRow.number).where(VersionRow.adapter == adapter.key)).all()
        raise NotFoundError(
            f"{adapter} has no version {number}",
            code="unknown-version",
            hint=f"its newest is {max(numbers, default=0)}",
        )
    if row.deleted is not None:
        raise NotFoundError(f"{adapter}@{number} was deleted: {row.deleted}", code="version-deleted")
    return row


def _exact(session: Session, adapter: AdapterName) -> str:
    """For an adapter without a version that could be meant by its name alone."""
    yanked = session.exec(
        select(func.max(VersionRow.number)).where(VersionRow.adapter == adapter.key, col(VersionRow.deleted).is_(None))
    ).one()
    if yanked is None:
        return f"`adapters log {adapter}` tells what happened to them; the next push makes a new one"
    return f"name one exactly, such as {adapter}@{yanked}, or take its yank back: adapters unyank"


def _by_digest(session: Session, start: str) -> VersionRow:
    rows = session.exec(
        select(VersionRow)
        .where(
            VersionRow.digest >= start,
            VersionRow.digest < start + "g",  # one above every hexadecimal digit
            col(VersionRow.deleted).is_(None),
        )
        .order_by(col(VersionRow.id))
        .limit(1000)
    ).all()
    if not rows:
        raise NotFoundError(f"no version has digest {start}", code="unknown-version")
    if len({row.digest for row in rows}) > 1:
        raise NotFoundError(
            f"{start} begins the digest of several versions", code="ambiguous-digest", hint="give more digits"
        )
    return next((row for row in rows if row.yanked is None), rows[0])


def _neighbours(session: Session, adapter: AdapterName) -> list[str]:
    """Names that begin like it."""
    key = col(AdapterRow.key)
    there = select(AdapterRow.key).where(col(AdapterRow.removed).is_(False)).limit(_NEIGHBOURS)
    after = session.exec(there.where(key > adapter.key).order_by(key))
    before = session.exec(there.where(key < adapter.key).order_by(key.desc()))
    return [*after, *before]
