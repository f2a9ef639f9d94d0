"""The tables. A column exists only where a query filters, sorts or joins; the rest of a version is in ``summary``.

Times are ISO 8601 text in UTC. Names are stored twice: ``key`` is lower case and compared, the other is shown.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, String, Text, UniqueConstraint, false
from sqlmodel import Field, SQLModel

#: Each order a list can have is an index that begins with it. What lists are filtered by stands behind, so that a row that
#: does not fit is passed over without being read.
_FILTERED = ("base", "rank", "peft_type", "task_type")


class AdapterRow(SQLModel, table=True):
    __tablename__ = "adapter"
    key: str = Field(primary_key=True, sa_type=String)
    namespace: str = Field(sa_type=String)
    name: str = Field(sa_type=String)
    next_number: int = 1
    #: Not shown to those who only read what is public.
    private: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    #: The name is free again, its numbers are not.
    removed: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class VersionRow(SQLModel, table=True):
    __tablename__ = "version"
    __table_args__ = (
        UniqueConstraint("adapter", "number"),
        CheckConstraint("number >= 1", name="version_number_positive"),
        Index("version_newest", "newest", "adapter", *_FILTERED),
        Index("version_base", "base", "adapter", "number", "newest", "rank", "peft_type", "task_type"),
        Index("version_created", "created_at", "id", "newest", *_FILTERED),
        Index("version_rank", "rank", "id", "newest", "base", "peft_type", "task_type"),
        Index("version_bytes", "bytes", "id", "newest", *_FILTERED),
        Index("version_parameters", "parameters", "id", "newest", *_FILTERED),
    )
    id: int | None = Field(default=None, primary_key=True)
    adapter: str = Field(foreign_key="adapter.key", sa_type=String)
    number: int
    digest: str = Field(index=True, sa_type=String)
    created_at: str = Field(sa_type=String)
    newest: bool = False  #: the adapter's newest version that is neither yanked nor deleted
    yanked: str | None = Field(default=None, sa_type=Text)
    deleted: str | None = Field(default=None, sa_type=Text)
    note: str | None = Field(default=None, sa_type=Text)
    base: str | None = Field(default=None, sa_type=String)  #: canonical id (or the raw text), lower case
    peft_type: str | None = Field(default=None, sa_type=String)
    task_type: str | None = Field(default=None, sa_type=String)
    rank: int | None = None
    parameters: int = 0
    bytes: int = 0
    tensor_identity: str | None = Field(default=None, index=True, sa_type=String)
    summary: str = Field(default="{}", sa_type=Text)
    findings: str = Field(default="[]", sa_type=Text)


_columns = VersionRow.__table__.c  # type: ignore[attr-defined]
Index(
    "version_name",
    _columns.adapter,
    _columns.number.desc(),
    _columns.deleted,
    *(_columns[name] for name in _FILTERED),
)


class TargetRow(SQLModel, table=True):
    __tablename__ = "target"
    name: str = Field(primary_key=True, sa_type=String)
    version_id: int = Field(primary_key=True, foreign_key="version.id")


class BlobRow(SQLModel, table=True):
    """Which versions need which blobs: manifests, files and raw evaluation results."""

    __tablename__ = "blob"
    digest: str = Field(primary_key=True, sa_type=String)
    version_id: int = Field(primary_key=True, foreign_key="version.id", index=True)


class LineageRow(SQLModel, table=True):
    """Which versions were made from which: ``parent`` is the digest of the parent's manifest."""

    __tablename__ = "lineage"
    parent: str = Field(primary_key=True, sa_type=String)
    version_id: int = Field(primary_key=True, foreign_key="version.id", index=True)


class AliasRow(SQLModel, table=True):
    __tablename__ = "alias"
    adapter: str = Field(primary_key=True, foreign_key="adapter.key", sa_type=String)
    key: str = Field(primary_key=True, index=True, sa_type=String)
    name: str = Field(sa_type=String)
    number: int


class TagRow(SQLModel, table=True):
    __tablename__ = "tag"
    __table_args__ = (Index("tag_key_value", "key", "value"),)
    version_id: int = Field(primary_key=True, foreign_key="version.id")
    key: str = Field(primary_key=True, sa_type=String)
    value: str = Field(sa_type=Text)


class EvaluationRow(SQLModel, table=True):
    """``latest`` marks the newest row of a metric for its version, ``latest_of_task`` the newest for metric and task."""

    __tablename__ = "evaluation"
    __table_args__ = (
        Index("evaluation_latest", "metric", "latest", "value", "version_id"),
        Index("evaluation_task", "metric", "task", "latest_of_task", "value", "version_id"),
        Index("evaluation_version", "version_id", "metric", "task", "value", "latest", "latest_of_task"),
    )
    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="version.id")
    suite: str | None = Field(default=None, sa_type=String)
    task: str | None = Field(default=None, sa_type=String)
    metric: str = Field(sa_type=String)
    filter: str | None = Field(default=None, sa_type=String)
    split: str | None = Field(default=None, sa_type=String)
    value: float
    stderr: float | None = None
    n: int | None = None
    higher_is_better: bool | None = None
    source: str | None = Field(default=None, sa_type=Text)
    at: str | None = Field(default=None, sa_type=String)
    latest: bool = True
    latest_of_task: bool = True


class BaseRow(SQLModel, table=True):
    """A base model that is known module by module: ``digest`` is its description's, a blob."""

    __tablename__ = "base"
    key: str = Field(primary_key=True, sa_type=String)
    revision: str = Field(primary_key=True, sa_type=String)  #: empty where nobody said one
    name: str = Field(sa_type=String)
    digest: str = Field(index=True, sa_type=String)
    added: int  #: sequence number of the event, so that the newest can be told


class BaseAliasRow(SQLModel, table=True):
    """Another name for a base, which somebody who uses this registry has vouched for."""

    __tablename__ = "base_alias"
    key: str = Field(primary_key=True, sa_type=String)
    name: str = Field(sa_type=String)
    canonical: str = Field(sa_type=String)
    canonical_key: str = Field(index=True, sa_type=String)


class CommitRow(SQLModel, table=True):
    """What a client of the Hub's protocol committed. ``tree`` is the digest of the blob that lists its files; ``number`` the
    version whose adapter it holds, 0 before the first; a ``draft`` waits for the rest of an upload and is not what ``main``
    shows."""

    __tablename__ = "hub_commit"
    adapter: str = Field(primary_key=True, foreign_key="adapter.key", sa_type=String)
    id: str = Field(primary_key=True, sa_type=String)
    sequence: int = Field(index=True)
    parent: str | None = Field(default=None, sa_type=String)
    tree: str = Field(sa_type=String)
    title: str = Field(sa_type=Text)
    author: str = Field(sa_type=String)
    at: str = Field(sa_type=String)
    number: int = 0
    draft: bool = False


class CommitBlobRow(SQLModel, table=True):
    """Which commits need which blobs: the tree's and its files'."""

    __tablename__ = "hub_commit_blob"
    digest: str = Field(primary_key=True, sa_type=String)
    adapter: str = Field(primary_key=True, sa_type=String)
    commit: str = Field(primary_key=True, sa_type=String)


class TokenRow(SQLModel, table=True):
    """``actions`` and ``patterns`` are lists, separated by commas."""

    __tablename__ = "token"
    id: str = Field(primary_key=True, sa_type=String)
    name: str = Field(sa_type=String)
    hash: str = Field(sa_type=String)
    actions: str = Field(sa_type=String)
    patterns: str = Field(sa_type=Text)
    created_at: str = Field(sa_type=String)
    expires_at: str | None = Field(default=None, sa_type=String)
    revoked_at: str | None = Field(default=None, sa_type=String)


class AuditRow(SQLModel, table=True):
    """``body`` is the event's canonical JSON; it holds the hash of the row before it. ``hash`` is its SHA-256."""

    __tablename__ = "audit"
    sequence: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    action: str = Field(sa_type=String)
    adapter: str | None = Field(default=None, index=True, sa_type=String)
    body: str = Field(sa_type=Text)
    hash: str = Field(sa_type=String)
