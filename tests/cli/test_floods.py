"""Many reasons are no flood, and a reader who leaves early changes no exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes

COMMAND = str(Path(sys.executable).with_name("adapters"))
LAYERS = [f"model.layers.{number}.self_attn.q_proj" for number in range(91)]


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A base whose layers are one narrower than the adapter's."""
    directory = tmp_path / "narrow"
    directory.mkdir()
    tensors = {f"{layer}.weight": ("F32", (2, 2), floats(0.5, count=4)) for layer in LAYERS}
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return directory


def test_ten_reasons_are_said_and_json_has_all(adapters: Adapters, write_adapter: WriteAdapter, narrow: Path) -> None:
    wide = str(write_adapter("wide", lora_tensors(*LAYERS)))
    line = ("push", wide, "--base", str(narrow))
    said = adapters(*line)
    assert said.code == 6
    reasons = len(adapters.refusal(*line)["findings"])
    assert reasons >= 91
    lines = said.err.splitlines()
    assert lines[-1] == f"… and {reasons - 10} more (--json shows all)"
    assert len(lines) <= 1 + 2 * 10 + 1
    assert len(set(lines)) == len(lines)
    said = adapters("merge", str(narrow), wide, "-o", "nowhere")
    assert said.code == 6
    assert len(said.err.splitlines()) <= 22


def test_what_was_allowed_is_no_flood_either(adapters: Adapters, write_adapter: WriteAdapter, narrow: Path) -> None:
    wide = str(write_adapter("wide", lora_tensors(*LAYERS)))
    line = ["push", wide, "--base", str(narrow)]
    rules = {finding["rule"] for finding in adapters.refusal(*line)["findings"]}
    said = adapters(*line, *(word for rule in rules for word in ("--allow", rule)))
    assert said.code == 0
    assert len(said.err.splitlines()) <= 22


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "--json", "--format=sarif"])
def test_a_reader_that_leaves_changes_no_exit_code(
    adapters: Adapters, write_adapter: WriteAdapter, narrow: Path, form: str
) -> None:
    wide = write_adapter("wide", lora_tensors(*LAYERS))
    read = f"{COMMAND} check {wide} --base {narrow} {form} --registry {adapters.registry}"
    done = subprocess.run(["bash", "-c", f"{read} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (6, False), done.stderr
    read = f"{COMMAND} push {wide} --base {narrow} --registry {adapters.registry}"
    if form != "--format=sarif":
        done = subprocess.run(["bash", "-c", f"{read} {form} 2>&1 | true; exit ${{PIPESTATUS[0]}}"], capture_output=True)
        assert done.returncode == 6
