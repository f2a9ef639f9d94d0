"""Output where not every character can be written: no command fails after it did what it was to do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.streams import spell_out
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

ROOT = Path(__file__).parents[2]


def run(adapters: Adapters, encoding: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding, "ADAPTERS_REGISTRY": str(adapters.registry)},
        capture_output=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_stream_cannot_hold_is_spelled(
    adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path, encoding: str
) -> None:
    tensors = lora_tensors("model.layers.0.self_attn.q_proj", value=0.25)
    adapters.json("push", str(write_adapter("my-lora", tensors)), "--note", "für Änne → 日本")
    adapters.json("eval", "add", "my-lora", "acc=0.5", "--task", "t")
    lines = {
        ("pull", "my-lora", "-o", str(tmp_path / encoding)): (0, b"->"),
        ("alias", "set", "my-lora", "production", "1"): (0, b"->"),
        ("gate", "my-lora", "--min", "acc>=0.1"): (0, b"+ met"),
        ("gate", "my-lora", "--min", "acc>=0.9"): (6, b"x not met"),
        ("promote", "my-lora", "--alias", "canary", "--min", "acc>=0.1"): (0, b"-> @1"),
        ("inspect", "my-lora"): (0, b"#"),
        ("show", "my-lora"): (0, rb"\u65e5"),
        ("--help",): (0, b"Usage"),
        ("combine", "--help"): (0, b"Usage"),
    }
    for line, (code, words) in lines.items():
        done = run(adapters, encoding, *line)
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert words in done.stdout, (line, done.stdout)


@pytest.mark.slow
def test_json_is_the_same_in_every_encoding(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("my-lora")), "--note", "→ 日本 ä")
    for encoding in ("latin-1", "ascii", "utf-8"):
        done = run(adapters, encoding, "show", "my-lora", "--json")
        assert json.loads(done.stdout.decode(encoding))["note"] == "→ 日本 ä"


def test_what_has_no_spelling_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii"))
    spell_out()
    sys.stdout.write("a → b ✗ ‖Δ‖ é 日\n")
    sys.stdout.flush()
    assert held.getvalue() == b"a -> b x ||D|| \\xe9 \\u65e5\n"
