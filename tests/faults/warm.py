"""SQLAlchemy compiles a statement once per engine, and every registry has its own. Thousands of registries are opened
here, so all of a process share one cache; what reaches the disk is the same."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine

import registry.catalog.engine as target

_shared: list[Engine] = []


def share_compiled_statements() -> None:
    target.create_engine = _create


def _create(*arguments: Any, **options: Any) -> Engine:
    engine = create_engine(*arguments, **options)
    if not _shared:
        _shared.append(engine)
    engine.dialect = _shared[0].dialect
    engine._compiled_cache = _shared[0]._compiled_cache
    return engine
