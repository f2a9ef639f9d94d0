"""The house stands as drawn: rooms import only rooms below them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_goes_down() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_says_what_it_is_for() -> None:
    modules = [*(ROOT / "registry").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    assert [str(path) for path in modules if not path.read_text().lstrip().startswith('"""')] == []
