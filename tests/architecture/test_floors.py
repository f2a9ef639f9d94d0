"""The house stands as drawn: rooms import only rooms below them."""

from __future__ import annotations

import ast
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


def test_the_command_line_works_with_the_verbs_of_a_registry_alone() -> None:
    """What a command can do, the Python API can do."""
    beneath = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "cli").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("catalog", "blobs")
        if ast.unparse(node.value).endswith("registry") or isinstance(node.value, ast.Call)
    ]
    assert beneath == []
