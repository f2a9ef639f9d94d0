"""The command in this process: fast, and with its streams apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The one JSON document on stderr."""
        assert self.out == ""
        return json.loads(self.err)["error"]


class Adapters:
    def __init__(self, registry: Path) -> None:
        self.registry = registry

    def __call__(self, *arguments: str) -> Said:
        result = CliRunner().invoke(app, [*arguments, "--registry", str(self.registry)], catch_exceptions=False)
        return Said(result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: str) -> Any:
        return self(*arguments, "--json").document

    def refusal(self, *arguments: str) -> Any:
        return self(*arguments, "--json").error


@pytest.fixture
def adapters(tmp_path: Path) -> Adapters:
    return Adapters(tmp_path / "registry")
