"""What a CI takes from this repository: the action, the hook and the README's snippets, run as the CI would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.conftest import WriteAdapter, lora_tensors
from tests.journeys.test_readme import ROOT, blocks

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
INSTALL, CHECK = ACTION["runs"]["steps"]
#: How GitHub runs a step whose shell is ``bash``.
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
WIDE = lora_tensors(rank=300)


def environment(home: Path, **values: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RUNNER_TEMP": str(home / "runner"), "ADAPTERS_REGISTRY": str(home / "r"), **values}


def step(home: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's check with its inputs, defaults filled in, expressions evaluated."""
    given = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()}
    given |= {name.replace("_", "-").strip("-"): value for name, value in inputs.items()}
    values = {key: given[expression(text)] for key, text in CHECK["env"].items()}
    line = [*BASH, CHECK["run"]]
    return subprocess.run(line, cwd=home, env=environment(home, **values), capture_output=True, text=True)


def expression(text: str) -> str:
    match = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", text)
    assert match is not None
    return match[1]


def test_the_action_is_one_that_github_takes() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert ACTION["name"]
    assert len(ACTION["description"]) <= 125  # the marketplace's limit
    assert {expression(text) for text in CHECK["env"].values()} == ACTION["inputs"].keys()
    for one in ACTION["runs"]["steps"]:
        assert one["shell"] == "bash"
        assert "${{" not in one["run"]  # an input inside a script would be a part of the script
        subprocess.run(["bash", "-n", "-c", one["run"]], check=True)
    assert INSTALL["env"] == {"SOURCE": "${{ github.action_path }}"}


def test_the_action_installs_the_light_core_from_its_own_checkout(tmp_path: Path) -> None:
    """The script's own words, with a python that writes them down."""
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = f'#!/bin/sh\necho "$@" >> {tmp_path}/said\nmkdir -p "$3/bin"; cp "$0" "$3/bin/python"\n'
    (tools / "python3").write_text(fake)
    (tools / "python3").chmod(0o755)
    values = environment(tmp_path, SOURCE="/some where/action")
    values["PATH"] = f"{tools}:{os.environ['PATH']}"
    subprocess.run([*BASH, INSTALL["run"]], cwd=tmp_path, env=values, check=True)
    made, installed = (tmp_path / "said").read_text().splitlines()
    assert made == f"-m venv {tmp_path}/runner/adapter-registry"
    assert installed == "-m pip install --quiet --disable-pip-version-check /some where/action"
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [one for one in core if re.match(r"torch|numpy|safetensors|peft|transformers", one)]


@pytest.mark.slow
def test_the_action_says_what_the_command_says(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    write_adapter("fits")
    write_adapter("two words", WIDE, r=300)
    done = step(tmp_path, adapter="fits", for_="vllm")
    assert (done.returncode, done.stderr) == (0, "")
    assert "::" not in done.stdout
    done = step(tmp_path, adapter="fits\ntwo words\n", for_="vllm")
    assert done.returncode == 6
    assert "::error file=two words/adapter_config.json,title=serve-rank::" in done.stdout
    done = step(tmp_path, adapter="fits", for_="vllm", max_lora_rank="1")
    assert done.returncode in (3, 6)
    assert step(tmp_path, adapter="nobody", for_="vllm").returncode == 4
    assert step(tmp_path, adapter="fits").returncode == 2
    assert step(tmp_path, adapter="", for_="vllm").returncode == 2
    (tmp_path / "fits" / "adapter_config.json").write_text("{")
    assert step(tmp_path, adapter="./fits", for_="vllm").returncode == 3


def test_the_action_writes_a_report_with_commands_stopped(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    write_adapter("wide", WIDE, r=300)
    done = step(tmp_path, adapter="wide", for_="vllm", format="junit", report="adapters.xml")
    assert done.returncode == 6
    first, last = done.stdout.splitlines()
    assert first.removeprefix("::stop-commands::") == last.strip(":")
    assert len(last.strip(":")) == 64
    assert ET.parse(tmp_path / "adapters.xml").getroot().get("failures") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["$(touch pwned)`touch pwned`'; touch pwned; \"; touch pwned #", "--registry=pwned"])
@pytest.mark.parametrize("name", ["adapter", "base", "for_", "max_lora_rank", "format"])
def test_an_input_is_no_script_and_no_option(tmp_path: Path, write_adapter: WriteAdapter, name: str, hostile: str) -> None:
    write_adapter("fits")
    done = step(tmp_path, **{"adapter": "fits", "for_": "vllm", name: hostile})
    assert done.returncode in (2, 3, 4, 8)
    assert {path.name for path in tmp_path.iterdir()} <= {"fits"}


def hook(home: Path, files: list[str], arguments: list[str] | None = None) -> int:
    """As pre-commit does: entry, then the configuration's args or the hook's own, then the files its pattern takes."""
    (one,) = HOOKS
    taken = [file for file in files if re.search(one["files"], file)]
    line = [*one["entry"].split(), *(one["args"] if arguments is None else arguments), *taken]
    return subprocess.run(line, cwd=home, env=environment(home), capture_output=True, text=True).returncode


@pytest.mark.slow
def test_the_hook_checks_the_adapters_of_changed_files(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    (one,) = HOOKS
    assert {"id", "name", "entry", "language"} <= one.keys()  # what pre-commit demands
    assert (one["id"], one["language"], one["require_serial"]) == ("adapters-check", "python", True)
    write_adapter("good")
    write_adapter("deep/er", WIDE, r=300)
    changed = ["good/adapter_config.json", "good/adapter_model.safetensors", "good/README.md"]
    assert hook(tmp_path, changed) == 0
    assert hook(tmp_path, [*changed, "deep/er/adapter_model.safetensors"]) == 0  # PEFT itself has no limit
    assert hook(tmp_path, [*changed, "deep/er/adapter_model.safetensors"], ["--for", "vllm"]) == 6
    assert hook(tmp_path / "good", ["adapter_config.json"]) == 0
    (tmp_path / "good" / "adapter_config.json").write_text("{")
    assert hook(tmp_path, changed) == 3
    taken = ["adapter_config.json", "a/adapter_model.safetensors"]
    left = ["my_adapter_config.json", "adapter_config.json.orig", "a/adapter_model.bin"]
    assert [name for name in taken + left if re.search(one["files"], name)] == taken


def snippets() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The README's: a step of GitHub, a job of GitLab, a repository of pre-commit."""
    action, gitlab, hooks = map(yaml.safe_load, blocks("yaml"))
    return action[0], gitlab["adapters"], hooks[0]


@pytest.mark.slow
def test_the_snippets_name_what_there_is(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    action, _, hooks = snippets()
    assert action["uses"].partition("@")[0].endswith("/adapter-registry")
    required = {name for name, about in ACTION["inputs"].items() if about.get("required")}
    assert required <= action["with"].keys() <= ACTION["inputs"].keys()
    write_adapter("my-lora")
    inputs = {name.replace("for", "for_"): value for name, value in action["with"].items()}
    assert step(tmp_path, **inputs).returncode == 0
    assert [one["id"] for one in hooks["hooks"]] == [one["id"] for one in HOOKS]
    assert hook(tmp_path, ["my-lora/adapter_config.json"], hooks["hooks"][0]["args"]) == 0


def test_the_job_on_gitlab_leaves_its_report_also_when_it_fails(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    _, job, _ = snippets()
    report = tmp_path / job["artifacts"]["reports"]["junit"]
    assert job["artifacts"]["when"] == "always"
    script = "set -eo pipefail\n" + "\n".join(job["script"])
    place = write_adapter("my-lora")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path))
    assert (done.returncode, ET.parse(report).getroot().get("failures")) == (0, "0")
    (place / "adapter_model.safetensors").write_bytes(b"")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path))
    assert (done.returncode, ET.parse(report).getroot().get("failures")) == (3, "1")
