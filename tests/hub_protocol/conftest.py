"""Adapters for clients in other processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CONFIG, lora_tensors, safetensors_bytes
from tests.hub_protocol.in_process import Hub, hub, in_files

CARD = "---\nbase_model: openai-community/gpt2\nlibrary_name: peft\n---\n# A card\n"


def write_one(directory: Path, *, value: float = 0.5, width: int = 64, **config: object) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}, indent=2))
    (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(lora_tensors(value=value, width=width)))
    (directory / "README.md").write_text(CARD)
    return directory


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    return hub(tmp_path / "store")


@pytest.fixture
def first(tmp_path: Path) -> dict[str, bytes]:
    return in_files(write_one(tmp_path / "first"))


@pytest.fixture
def second(tmp_path: Path) -> dict[str, bytes]:
    """Another adapter of the same files."""
    return in_files(write_one(tmp_path / "second", value=0.25))


@pytest.fixture(scope="session")
def write_adapters() -> Callable[[Path], None]:
    """``a`` and ``b`` differ in their weights alone, ``large`` has 25 MB of them."""

    def write(place: Path) -> None:
        write_one(place / "a")
        write_one(place / "b", value=0.25)
        write_one(place / "large", width=1_600_000)

    return write
