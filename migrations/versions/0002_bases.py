"""Base models that are known module by module, and other names for them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "base",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "revision"),
    )
    op.create_index("ix_base_digest", "base", ["digest"], unique=False)
    op.create_table(
        "base_alias",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("canonical", sa.String(), nullable=False),
        sa.Column("canonical_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_base_alias_canonical_key", "base_alias", ["canonical_key"], unique=False)


def downgrade() -> None:
    op.drop_table("base_alias")
    op.drop_table("base")
