"""The registry: adapters, versions and what finds them, aliases, tags, evaluations, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "adapter",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("ix_audit_adapter", "audit", ["adapter"], unique=False)
    op.create_table(
        "alias",
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter"],
            ["adapter.key"],
        ),
        sa.PrimaryKeyConstraint("adapter", "key"),
    )
    op.create_index("ix_alias_key", "alias", ["key"], unique=False)
    op.create_table(
        "version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.Column("yanked", sa.Text(), nullable=True),
        sa.Column("deleted", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("base", sa.String(), nullable=True),
        sa.Column("peft_type", sa.String(), nullable=True),
        sa.Column("task_type", sa.String(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("parameters", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("tensor_identity", sa.String(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.CheckConstraint("number >= 1", name="version_number_positive"),
        sa.ForeignKeyConstraint(
            ["adapter"],
            ["adapter.key"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("adapter", "number"),
    )
    op.create_index("ix_version_digest", "version", ["digest"], unique=False)
    op.create_index("ix_version_tensor_identity", "version", ["tensor_identity"], unique=False)
    op.create_index(
        "version_base",
        "version",
        ["base", "adapter", "number", "newest", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index(
        "version_bytes",
        "version",
        ["bytes", "id", "newest", "base", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index(
        "version_created",
        "version",
        ["created_at", "id", "newest", "base", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index(
        "version_name",
        "version",
        ["adapter", sa.text("number DESC"), "deleted", "base", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index(
        "version_newest",
        "version",
        ["newest", "adapter", "base", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index(
        "version_parameters",
        "version",
        ["parameters", "id", "newest", "base", "rank", "peft_type", "task_type"],
        unique=False,
    )
    op.create_index("version_rank", "version", ["rank", "id", "newest", "base", "peft_type", "task_type"], unique=False)
    op.create_table(
        "blob",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["version.id"],
        ),
        sa.PrimaryKeyConstraint("digest", "version_id"),
    )
    op.create_index("ix_blob_version_id", "blob", ["version_id"], unique=False)
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("suite", sa.String(), nullable=True),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("filter", sa.String(), nullable=True),
        sa.Column("split", sa.String(), nullable=True),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("stderr", sa.Float(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=True),
        sa.Column("higher_is_better", sa.Boolean(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("at", sa.String(), nullable=True),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("latest_of_task", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["version.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("evaluation_latest", "evaluation", ["metric", "latest", "value", "version_id"], unique=False)
    op.create_index(
        "evaluation_task",
        "evaluation",
        ["metric", "task", "latest_of_task", "value", "version_id"],
        unique=False,
    )
    op.create_index(
        "evaluation_version",
        "evaluation",
        ["version_id", "metric", "task", "value", "latest", "latest_of_task"],
        unique=False,
    )
    op.create_table(
        "tag",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["version.id"],
        ),
        sa.PrimaryKeyConstraint("version_id", "key"),
    )
    op.create_index("tag_key_value", "tag", ["key", "value"], unique=False)
    op.create_table(
        "target",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["version.id"],
        ),
        sa.PrimaryKeyConstraint("name", "version_id"),
    )


def downgrade() -> None:
    op.drop_table("target")
    op.drop_index("tag_key_value", table_name="tag")
    op.drop_table("tag")
    op.drop_index("evaluation_version", table_name="evaluation")
    op.drop_index("evaluation_task", table_name="evaluation")
    op.drop_index("evaluation_latest", table_name="evaluation")
    op.drop_table("evaluation")
    op.drop_index("ix_blob_version_id", table_name="blob")
    op.drop_table("blob")
    op.drop_index("version_rank", table_name="version")
    op.drop_index("version_parameters", table_name="version")
    op.drop_index("version_newest", table_name="version")
    op.drop_index("version_name", table_name="version")
    op.drop_index("version_created", table_name="version")
    op.drop_index("version_bytes", table_name="version")
    op.drop_index("version_base", table_name="version")
    op.drop_index("ix_version_tensor_identity", table_name="version")
    op.drop_index("ix_version_digest", table_name="version")
    op.drop_table("version")
    op.drop_index("ix_alias_key", table_name="alias")
    op.drop_table("alias")
    op.drop_index("ix_audit_adapter", table_name="audit")
    op.drop_table("audit")
    op.drop_table("adapter")
