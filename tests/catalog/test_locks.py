"""The stamp is read beside SQLite, and costs its transactions nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from registry.connect import connect

WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0.2, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
    print("writes")
except sqlite3.OperationalError as error:
    print(error)
"""


def another_process(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_looking_at_the_stamp_takes_no_lock_away(tmp_path: Path) -> None:
    """Of a transaction of the same process: POSIX drops all of them when any descriptor of the file is closed."""
    catalog = connect(tmp_path).catalog
    catalog.prepare()
    with catalog.writing():
        assert another_process(tmp_path / "catalog.db") == "database is locked"
        for _ in range(3):
            catalog.generation()
        assert another_process(tmp_path / "catalog.db") == "database is locked"
    assert another_process(tmp_path / "catalog.db") == "writes"


def test_the_stamp_is_that_of_the_file_which_has_the_name(tmp_path: Path) -> None:
    registry = connect(tmp_path)
    with registry.catalog.writing() as writer:
        writer.create_adapter(registry.adapter("a"), private=False)
    before = registry.catalog.generation()
    assert registry.catalog.generation() == before
    registry.rebuild()
    assert registry.catalog.generation() != before
