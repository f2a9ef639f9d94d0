"""Catalogs in memory that are ready at once: each is a copy of one that was migrated before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from registry.catalog.journal import MemoryJournal
from registry.catalog.sql import SqlCatalog
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import FileEntry, Manifest, Target
from registry.domain.names import AdapterName

NAME = AdapterName.parse("team/adapter")


def clock() -> Callable[[], str]:
    """A second later each time it is asked."""
    moments = iter(range(10**6))
    return lambda: f"2026-01-01T00:00:00.{next(moments):06d}Z"


@cache
def _migrated() -> bytes:
    catalog = SqlCatalog(None, MemoryJournal())
    with catalog.writing():
        pass
    with catalog._engine.connect() as connection:
        return connection.connection.driver_connection.serialize()  # type: ignore[union-attr]


def migrated_file(path: Path) -> Path:
    path.write_bytes(_migrated())
    return path


def memory_catalog() -> SqlCatalog:
    catalog = SqlCatalog(None, MemoryJournal(), actor="tester", now=clock())
    with catalog._engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.deserialize(_migrated())
    return catalog


def manifest(
    salt: int = 0,
    *,
    base: str | None = "Org/A",
    rank: int | None = 8,
    targets: tuple[str, ...] = ("q_proj",),
    peft_type: str = "LORA",
    task_type: str | None = "CAUSAL_LM",
    size: int = 10,
    parents: Sequence[Digest] = (),
) -> Manifest:
    """Another manifest for each ``salt``."""
    return Manifest(
        peft_type=peft_type,
        variant=peft_type.lower(),
        base_model=BaseModelId(base),
        task_type=task_type,
        targets=tuple(Target(f"layers.0.{name}", rank, 8.0, None) for name in targets),
        tensors=(),
        tensor_identity=Digest.of(str(salt).encode()),
        files=(
            FileEntry("shared", Digest.of(b"shared"), 7),
            FileEntry("own", Digest.of(str(salt).encode()), size),
        ),
        lineage=tuple(LineageEdge(parent, "combined-from") for parent in parents),
    )


@pytest.fixture
def memory() -> SqlCatalog:
    return memory_catalog()
