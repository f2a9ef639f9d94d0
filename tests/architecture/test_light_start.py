"""Speed of start is a feature: what is heavy is imported by who needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WriteAdapter

TENSORS = {"torch", "numpy", "safetensors", "peft", "transformers"}
SERVICES = {"fastapi", "huggingface_hub"}


def loaded_by(code: str, cwd: Path) -> set[str]:
    line = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", line], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_table_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = TENSORS | SERVICES | {"sqlalchemy", "sqlmodel", "alembic", "yaml", "re2", "rich"}
    assert loaded_by("import cli.main", tmp_path) & heavy == set()


def test_connecting_loads_no_tensors_and_no_parsers(tmp_path: Path) -> None:
    heavy = TENSORS | SERVICES | {"yaml", "re2", "alembic", "typer", "rich"}
    assert loaded_by("import registry.connect", tmp_path) & heavy == set()


def test_a_look_up_loads_no_parsers(tmp_path: Path) -> None:
    code = f"from registry.connect import connect; connect({str(tmp_path / 'r')!r}).list()"
    assert loaded_by(code, tmp_path) & (TENSORS | SERVICES | {"yaml", "re2", "alembic"}) == set()


@pytest.mark.parametrize("extra", ["adapter_model.bin", "training_args.bin"])
def test_a_push_needs_no_tensors_and_opens_no_pickle(tmp_path: Path, write_adapter: WriteAdapter, extra: str) -> None:
    directory = write_adapter("my-lora")
    (directory / extra).write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    code = f"from registry.connect import connect; connect({str(tmp_path / 'r')!r}).push({str(directory)!r})"
    assert loaded_by(code, tmp_path) & (TENSORS | {"fastapi", "httpx", "httpx2", "requests"}) == set()
    assert not (tmp_path / "canary").exists()
