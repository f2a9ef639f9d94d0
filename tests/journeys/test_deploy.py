"""Dockerfile and compose.yaml: what they claim, as far as it shows without a container engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM \S+ AS (\S+)\n", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_both_images_run_as_nobody_special_and_start_a_command_that_exists() -> None:
    for name in ("server", "workshop"):
        text = stages()[name]
        assert re.search(r"^USER adapters$", text, re.MULTILINE)
        command = re.search(r"^CMD \[(.+)\]$", text, re.MULTILINE)
        assert command is not None
        first = command[1].split(",")[0].strip('" ')
        assert first in COMMANDS or first == "--help"


def test_the_server_has_no_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "[server]" in stages()["server"]
    assert not any(re.match(r"torch|numpy|safetensors|peft|transformers", each) for each in extras["server"])


def test_the_workshop_has_what_every_verb_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = re.search(r"\*\.whl\)\[([a-z,]+)\]", stages()["workshop"])
    assert installed is not None
    assert set(installed[1].split(",")) == set(extras) - {"all"}


def test_every_extra_that_is_installed_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for group in re.findall(r"\*\.whl\)\[([a-z,]+)\]", DOCKERFILE) for extra in group.split(",")}
    assert named
    assert named <= set(extras)


def test_the_server_is_asked_whether_it_is_ready() -> None:
    assert "HEALTHCHECK" in stages()["server"]
    assert "/readyz" in stages()["server"]


def test_compose_writes_nowhere_but_into_its_volume_and_is_not_open_to_the_world() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["registry"]
    assert service["build"]["target"] in stages()
    assert service["read_only"]
    assert service["volumes"] == ["data:/data"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
