"""How the command behaves towards people and pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from cli.main import COMMANDS, GROUPS, _options_last, main
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

COMMAND = str(Path(sys.executable).with_name("adapters"))


def test_every_command_has_help_with_an_example(adapters: Adapters) -> None:
    lines = [[verb] for verb in COMMANDS] + [[noun, verb] for noun, (_, verbs) in GROUPS.items() for verb in verbs]
    for line in lines:
        said = adapters(*line, "--help")
        assert said.code == 0
        assert "Example: adapters" in said.out, line


def test_options_for_everywhere_may_stand_in_front() -> None:
    assert _options_last(["--registry", "R", "--json", "list", "x"]) == ["list", "--registry", "R", "--json", "x"]
    assert _options_last(["--registry=R", "alias", "set", "x"]) == ["alias", "set", "--registry=R", "x"]
    assert _options_last(["list", "--json"]) == ["list", "--json"]
    assert _options_last(["--json"]) == ["--json"]


def test_colour_is_for_terminals(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters("push", str(write_adapter("my-lora")))
    assert "\x1b" not in adapters("list").out + adapters("show", "my-lora").out
    assert "\x1b" not in adapters("show", "nobody").err


def test_reading_a_registry_that_is_not_there_makes_none(adapters: Adapters) -> None:
    assert adapters("list").code == 0
    assert adapters("show", "x").code == 4
    assert not adapters.registry.exists()


@pytest.mark.parametrize("line", [["doctor", "--deep"], ["gc"], ["gc", "--dry-run"], ["migrate"], ["rebuild"]])
def test_upkeep_of_a_registry_that_is_not_there_says_so(adapters: Adapters, line: list[str]) -> None:
    assert adapters.refusal(*line)["code"] == "no-registry"
    assert adapters(*line).code == 4
    assert not adapters.registry.exists()
    adapters.registry.mkdir()
    (adapters.registry / "notes.txt").write_text("x")
    assert adapters(*line).code == 4
    assert [path.name for path in adapters.registry.iterdir()] == ["notes.txt"]


def test_a_reader_that_leaves_early_is_no_error(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters("push", str(write_adapter("my-lora")))
    line = f"{COMMAND} list --registry {adapters.registry} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters("push", str(write_adapter("my-lora")))
    big = write_adapter("big", lora_tensors(rank=2, width=10_000_000), base_model_name_or_path="a/b")
    before = sorted(path for path in adapters.registry.rglob("*") if path.is_file())
    process = subprocess.Popen(
        [COMMAND, "push", str(big), "--registry", str(adapters.registry)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None and not any((adapters.registry / "staging").iterdir()):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert sorted(path for path in adapters.registry.rglob("*") if path.is_file()) == before
    assert adapters("doctor", "--deep").code == 0


def test_it_says_its_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["adapters", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"adapters {version('adapter-registry')}\n"
