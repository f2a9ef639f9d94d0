"""What a server needs: tokens, adapters that are private or removed, commits of the Hub's protocol."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("adapter", sa.Column("private", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("adapter", sa.Column("removed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "hub_commit",
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("parent", sa.String(), nullable=True),
        sa.Column("tree", sa.String(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("draft", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["adapter"], ["adapter.key"]),
        sa.PrimaryKeyConstraint("adapter", "id"),
    )
    op.create_index("ix_hub_commit_sequence", "hub_commit", ["sequence"], unique=False)
    op.create_table(
        "hub_commit_blob",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("commit", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "adapter", "commit"),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("actions", sa.String(), nullable=False),
        sa.Column("patterns", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("expires_at", sa.String(), nullable=True),
        sa.Column("revoked_at", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    op.drop_table("token")
    op.drop_table("hub_commit_blob")
    op.drop_table("hub_commit")
    op.drop_column("adapter", "removed")
    op.drop_column("adapter", "private")
