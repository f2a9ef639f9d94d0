"""Ctrl-C: what is left, and what may be done with it. And a server that cannot be, or that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.commands import merge
from cli.rendering import Meter
from tests.cli.conftest import Adapters
from tests.cli.test_merge import base, one  # noqa: F401

ROOT = Path(__file__).parents[2]


class Impatient(Meter):
    def __call__(self, count: int) -> None:
        raise KeyboardInterrupt


@contextmanager
def impatient(_label: str, *, silent: bool) -> Iterator[Meter]:
    yield Impatient()


def test_an_interrupted_merge_says_where_its_work_lies_and_how_to_go_on(
    adapters: Adapters, base: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    line = ("merge", str(base), str(one), "-o", str(tmp_path / "merged"))
    with monkeypatch.context() as patch:
        patch.setattr(merge, "progress", impatient)
        said = adapters(*line)
    place = tmp_path / ".merged.partial-merge"
    held = sum(path.stat().st_size for path in place.iterdir())
    assert said.code == 130
    assert str(place) in said.err
    assert f"{held} B" in said.err
    assert "--resume" in said.err
    assert f"rm -r {place}" in said.err
    assert adapters(*line, "--resume").code == 0
    assert not place.exists()


def test_without_work_that_is_kept_nothing_is_said_of_it(
    adapters: Adapters, base: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("registry.operations.merge.prepare", stop)
    said = adapters("merge", str(base), str(one), "-o", str(tmp_path / "merged"))
    assert (said.code, said.err) == (130, "interrupted; nothing that loads was left behind\n")


def test_a_server_without_its_libraries_says_what_to_install(adapters: Adapters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "registry.api.serve", raising=False)
    refusal = adapters.refusal("serve")
    assert (refusal["exit_code"], refusal["code"]) == (8, "server-missing")
    assert "uvicorn" in refusal["message"]
    assert refusal["hint"] == "pip install 'adapter-registry[server]'"
    assert not adapters.registry.exists()


@pytest.mark.slow
def test_a_server_that_is_interrupted_says_that_it_stopped(adapters: Adapters) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "serve", "--port", "0", "--registry", str(adapters.registry)],
        cwd=ROOT,
        env={**os.environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "serving" in process.stderr.readline()
    time.sleep(0.5)  # until it minds signals
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "stopped\n")
