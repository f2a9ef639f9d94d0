"""A registry that was lived in, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from tests.conftest import lora_tensors
from tests.operations.adapters import write


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the registry the adapters it was made of. Versions a@1 and a@2 share their weights; b@1 has its own."""
    root = tmp_path_factory.mktemp("template")
    registry = connect(root / "registry", actor="tester")
    (root / "results.json").write_text('{"results": {"arc": {"acc,none": 0.5, "acc_stderr,none": 0.01}}}')
    registry.push(write(root / "one"), name="a", alias="production", tags={"k": "v"})
    registry.push(write(root / "two", lora_alpha=8), name="a", evaluations=[root / "results.json"])
    registry.push(write(root / "three", lora_tensors(value=0.25)), name="b")
    assert registry.doctor(deep=True).problems == ()
    return root


@pytest.fixture
def lived(template: Path, tmp_path: Path) -> Registry:
    """A copy of the template in ``tmp_path``: ``registry``, ``one``, ``two``, ``three`` and ``results.json``."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return connect(tmp_path / "registry", actor="tester")
