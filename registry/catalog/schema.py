"""Bringing a database to the schema this version knows. Alembic is only imported when there is something to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from registry.catalog.engine import reading, writing
from registry.catalog.tables import AuditRow
from registry.errors import UnavailableError

#: The newest migration. A test compares it with the scripts.
HEAD = "0004"

#: The parents that the manifest with a digest names; none if it is gone.
ParentsOf = Callable[[str], Sequence[str]]


def current(connection: Connection) -> str | None:
    """The revision a database is at, None if it holds no registry."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def ensure(engine: Engine, parents_of: ParentsOf) -> None:
    """Migrate up to :data:`HEAD` in one transaction; ``parents_of`` is asked for what the tables do not hold yet. Raises
    UnavailableError for a database of a newer program."""
    with reading(engine) as connection:
        if current(connection) == HEAD:
            return
    with writing(engine) as connection:
        check(connection)
        revision = current(connection)
        if revision is None and not inspect(connection).get_table_names():
            create(connection)
        elif revision != HEAD:
            migrate(connection, HEAD, parents_of)


def create(connection: Connection) -> None:
    """What the migrations would make of an empty database, without them: the first push does not wait for Alembic."""
    AuditRow.metadata.create_all(connection)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def check(connection: Connection) -> None:
    _refuse_newer(current(connection))


def require_head(connection: Connection) -> None:
    """For a server, which others may be using the same store beside: it migrates nothing by itself."""
    revision = current(connection)
    if revision is not None:
        _require_head(revision)


def require_unchanged(connection: Connection) -> None:
    """In a transaction of a process that found or made the schema of this version before: another program may have changed it
    since."""
    _require_head(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision > HEAD:
        raise UnavailableError(
            f"the registry has schema {revision}, this version knows up to {HEAD}",
            code="schema-too-new",
            hint="upgrade adapter-registry; nothing was touched",
        )


def _require_head(revision: str | None) -> None:
    _refuse_newer(revision)
    if revision != HEAD:
        raise UnavailableError(
            f"the registry has schema {revision}, this version needs {HEAD}",
            code="schema-too-old",
            hint="stop the servers of this registry, then: adapters migrate",
        )


def migrate(connection: Connection, revision: str, parents_of: ParentsOf, *, down: bool = False) -> None:
    """Run the migration scripts inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes.update(connection=connection, parents_of=parents_of)
    (command.downgrade if down else command.upgrade)(config, revision)


def scripts() -> Path:
    """``migrations/`` at the top of a checkout; inside this package in an installed wheel."""
    installed = files("registry.catalog") / "migrations"
    if installed.is_dir():
        return Path(str(installed))
    return Path(__file__).parents[2] / "migrations"
