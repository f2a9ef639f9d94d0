"""Migrations: up, no drift, down, and up again with rows in place; a newer schema is refused untouched."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.catalog import schema
from registry.catalog.engine import reading, sqlite_engine, writing
from registry.catalog.tables import SQLModel
from registry.connect import Registry, connect
from registry.errors import UnavailableError
from tests.conftest import WriteAdapter, lora_tensors


def no_parents(_digest: str) -> list[str]:
    return []


def test_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.scripts()))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_up_gives_the_tables_of_the_application(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "catalog.db")
    schema.ensure(engine, no_parents)
    with reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    """Tables, columns, keys and indexes: compared as SQLite describes them, and as Alembic does."""
    made, migrated = sqlite_engine(tmp_path / "made.db"), sqlite_engine(tmp_path / "migrated.db")
    schema.ensure(made, no_parents)
    with writing(migrated) as connection:
        schema.migrate(connection, "head", no_parents)
    assert described(made) == described(migrated)
    with reading(migrated) as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def described(engine: Engine) -> dict[str, object]:
    with reading(engine) as connection:
        ask = connection.exec_driver_sql
        found: dict[str, object] = {"version": schema.current(connection)}
        tables = ask("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'").scalars().all()
        for table in sorted(tables):
            found[table] = ask(f"PRAGMA table_info({table})").all()
            found[f"{table} refers"] = sorted(map(str, ask(f"PRAGMA foreign_key_list({table})").all()))
        indexes = ask("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name <> 'alembic_version'").scalars()
        for index in sorted(indexes.all()):
            found[index] = ask(f"PRAGMA index_xinfo({index})").all()
        return found


def test_down_leaves_nothing_and_up_works_again(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "catalog.db")
    schema.ensure(engine, no_parents)
    with writing(engine) as connection:
        schema.migrate(connection, "base", no_parents, down=True)
    with reading(engine) as connection:
        tables = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
        assert tables <= {"alembic_version"}
        assert schema.current(connection) is None
    schema.ensure(engine, no_parents)
    with reading(engine) as connection:
        assert schema.current(connection) == schema.HEAD


def test_rows_survive_an_upgrade(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    """Going to the head again changes nothing, and a migration that fails half-way leaves everything as it was."""
    store.push(write_adapter("a"), alias="production", tags={"k": "v"}, evaluations=["acc=0.5"])
    before = store.show("a").document()
    engine = sqlite_engine(tmp_path / "registry" / "catalog.db")
    with writing(engine) as connection:
        schema.migrate(connection, "head", no_parents)
    with pytest.raises(RuntimeError, match="half-way"), writing(engine) as connection:
        schema.migrate(connection, "base", no_parents, down=True)
        raise RuntimeError("half-way")
    assert connect(tmp_path / "registry").show("a").document() == before


def test_down_and_rebuild_brings_the_rows_back(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    store.push(write_adapter("a"), alias="production")
    store.push(write_adapter("b", lora_tensors(value=0.25)), name="a")
    before = store.show("a@1").document()
    engine = sqlite_engine(tmp_path / "registry" / "catalog.db")
    with writing(engine) as connection:
        schema.migrate(connection, "base", no_parents, down=True)
    fresh = connect(tmp_path / "registry")
    fresh.rebuild()
    assert connect(tmp_path / "registry").show("a@1").document() == before


def test_lineage_of_versions_that_were_there_before_is_found(
    store: Registry, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    """A catalog from before schema 0004 learns it from the manifests, as soon as it is opened."""
    store.push(write_adapter("a"))
    store.push(write_adapter("b", lora_tensors(value=0.25)), parents=[("a", 0.5), "a@1"])
    store.push(write_adapter("c", lora_tensors(value=0.75)), parents=["a"])
    store.delete("c@1", reason="because")
    with writing(sqlite_engine(tmp_path / "registry" / "catalog.db")) as connection:
        schema.migrate(connection, "0003", no_parents, down=True)
    again = connect(tmp_path / "registry")
    assert [version.reference for version in again.list(parent="a")] == ["local/b@1"]
    assert again.doctor(deep=True).problems == ()


def test_a_newer_schema_is_refused_and_untouched(store: Registry, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    store.push(write_adapter("a"))
    path = tmp_path / "registry" / "catalog.db"
    with writing(sqlite_engine(path)) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    bytes_before = path.read_bytes()
    newer = connect(tmp_path / "registry")
    other = write_adapter("b", lora_tensors(value=0.25))
    for attempt in (newer.migrate, newer.rebuild, lambda: newer.show("a"), lambda: newer.push(other)):
        with pytest.raises(UnavailableError) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit_code) == ("schema-too-new", 8)
    assert path.read_bytes() == bytes_before


@pytest.mark.parametrize(("found", "code"), [("9999", "schema-too-new"), ("0001", "schema-too-old")])
def test_a_schema_that_changes_under_a_program_at_work_is_refused_and_untouched(
    store: Registry, write_adapter: WriteAdapter, tmp_path: Path, found: str, code: str
) -> None:
    """A newer program brought the registry to its own, or somebody put an old catalog back."""
    store.push(write_adapter("a"))
    place = tmp_path / "registry"
    client = TestClient(create_app(Settings(place)), base_url="http://localhost")
    alias = {"version": 1}
    assert client.put("/v1/adapters/local/a/aliases/x", json=alias).status_code == 200
    with writing(sqlite_engine(place / "catalog.db")) as connection:
        before = schema.current(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    untouched = {path: path.read_bytes() for path in (place / "catalog.db", *(place / "journal").rglob("*.*"))}
    with pytest.raises(UnavailableError) as caught:
        store.set_alias("a", "production", 1)
    assert caught.value.code == code
    for answer in (client.put("/v1/adapters/local/a/aliases/y", json=alias), client.get("/readyz")):
        assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert client.get("/healthz").status_code == 200
    assert {path: path.read_bytes() for path in (place / "catalog.db", *(place / "journal").rglob("*.*"))} == untouched
    with writing(sqlite_engine(place / "catalog.db")) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :before"), {"before": before})
    assert client.get("/readyz").status_code == 200
    store.set_alias("a", "production", 1)


def revisions() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(schema.scripts()))
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))]


@pytest.mark.parametrize("revision", revisions())
def test_each_step_down_and_up_again_gives_the_same_tables(tmp_path: Path, revision: str) -> None:
    engine = sqlite_engine(tmp_path / "catalog.db")

    def tables() -> list[str]:
        with reading(engine) as connection:
            return list(connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).scalars())

    with writing(engine) as connection:
        schema.migrate(connection, revision, no_parents)
    before = tables()
    with writing(engine) as connection:
        schema.migrate(connection, "-1", no_parents, down=True)
    assert tables() != before
    with writing(engine) as connection:
        schema.migrate(connection, revision, no_parents)
    assert tables() == before
