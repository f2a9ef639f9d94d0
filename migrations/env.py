"""Alembic's entry. The registry hands over an open connection and keeps the transaction; by hand, give ``-x db=PATH``."""

from __future__ import annotations

from pathlib import Path

from alembic import context
from sqlalchemy import Connection

from registry.catalog.engine import sqlite_engine, writing
from registry.catalog.tables import SQLModel


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
    context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with writing(sqlite_engine(Path(context.get_x_argument(as_dictionary=True)["db"]))) as opened:
        run(opened)
