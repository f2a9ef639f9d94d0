"""The README keeps its promises: what can be pasted is pasted, in order, in a fresh directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import COMMANDS, GROUPS
from tests.journeys.real_adapters import lay_minilm, train_minilm

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_every_block_runs_as_it_stands(tmp_path: Path) -> None:
    train_minilm(tmp_path / "my-lora")
    lay_minilm(tmp_path / "my-base")
    (tmp_path / "example.py").write_text("\n".join(blocks("python")))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ADAPTERS_REGISTRY": str(tmp_path / "store"), "PYTHONWARNINGS": "error"}
    script = "set -euo pipefail\n" + "\n".join(blocks("bash"))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "local/my-lora@1" in done.stdout
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "alias-moved" in done.stdout


def test_every_command_is_in_the_readme() -> None:
    verbs = [*COMMANDS, *(f"{noun} {verb}" for noun, (_, verbs) in GROUPS.items() for verb in verbs)]
    assert [verb for verb in verbs if f"adapters {verb}" not in TEXT] == []
