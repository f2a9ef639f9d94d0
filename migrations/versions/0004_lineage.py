"""Which versions were made from which, to be asked from the parent's side. Only the manifests of those that are there know it:
``parents_of`` in the configuration's attributes reads one by its digest."""

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    table = op.create_table(
        "lineage",
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"]),
        sa.PrimaryKeyConstraint("parent", "version_id"),
    )
    op.create_index("ix_lineage_version_id", "lineage", ["version_id"], unique=False)
    version = sa.table("version", sa.column("id"), sa.column("digest"), sa.column("deleted"))
    live = op.get_bind().execute(sa.select(version.c.id, version.c.digest).where(version.c.deleted.is_(None))).all()
    if not live:
        return
    parents_of = context.config.attributes["parents_of"]
    rows = [{"parent": parent, "version_id": number} for number, digest in live for parent in parents_of(digest)]
    op.bulk_insert(table, rows)


def downgrade() -> None:
    op.drop_table("lineage")
