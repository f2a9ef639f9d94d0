"""``adapters check --all``: which of my adapters survive?"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from registry.connect import Registry, connect
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes
from tests.operations.adapters import blob_path

WIDTH = 3
Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"
OTHER = "Qwen/Qwen2.5-0.5B"


@pytest.fixture
def upgrade(tmp_path: Path) -> Path:
    """A new release of the base: its q_proj is square, its k_proj has lost a row."""
    directory = tmp_path / "new-release" / "gpt2"
    directory.mkdir(parents=True)
    shapes = {Q: (WIDTH, WIDTH), K: (WIDTH - 1, WIDTH)}
    tensors = {f"{name}.weight": ("F32", shape, floats(0.5, count=shape[0] * shape[1])) for name, shape in shapes.items()}
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return directory


@pytest.fixture
def filled(adapters: Adapters, write_adapter: WriteAdapter) -> Registry:
    """``old`` adapts k_proj too, ``stays`` q_proj alone, ``elsewhere`` has another base; ``old@2`` is yanked."""
    both = {"target_modules": ["q_proj", "k_proj"]}
    registry = connect(adapters.registry, actor="tester")
    registry.push(write_adapter("old", lora_tensors(Q, K), **both))
    registry.push(write_adapter("newer", lora_tensors(Q)), name="old")
    registry.yank("old@2", "wrong")
    registry.push(write_adapter("stays"))
    registry.push(write_adapter("elsewhere", lora_tensors(Q, K), base_model_name_or_path=OTHER, **both))
    return registry


def test_an_upgrade_of_a_named_base(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    filled.add_base(upgrade, name="openai-community/gpt2@v2")
    said = adapters("check", "--all", "--base", "gpt2@v2", "--json")
    assert said.code == 6
    found = {one["subject"]: one for one in json.loads(said.out)}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "local/old@1": "does-not-fit",
        "local/stays@1": "fits",
    }
    assert {one["base"]["id"] for one in found.values()} == {"openai-community/gpt2"}
    assert found["local/old@1"].keys() == {"subject", "base", "profile", "verdict", "findings", "accounted"}


def test_text_is_a_line_each_and_the_counts(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    said = adapters("check", "--all", "--base", str(upgrade))
    assert said.code == 6
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["local/old@1", "local/stays@1"]  # the other has another base
    assert "does not fit" in lines[1]
    assert "[wrong-shape]" in lines[1]
    assert lines[-1] == "2 checked: 1 fit, 1 do not fit, 0 could not be checked"


def test_a_directory_that_nothing_ties_to_an_adapter_lets_nobody_pass(
    adapters: Adapters, filled: Registry, upgrade: Path
) -> None:
    nameless = upgrade.rename(upgrade.with_name("checkpoint"))
    refusal = adapters.refusal("check", "--all", "--base", str(nameless))
    assert (refusal["exit_code"], refusal["code"]) == (8, "base-unnamed")
    assert f"base add {nameless} --name" in refusal["hint"]


def test_an_engine_alone_is_asked_about_all(adapters: Adapters, filled: Registry) -> None:
    assert adapters("check", "--all", "--for", "vllm").code == 0
    said = adapters("check", "--all", "--for", "vllm==0.8.0", "--max-lora-rank", "1", "--json")
    assert (said.code, len(json.loads(said.out))) == (6, 3)


def test_every_report_has_all(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    said = {
        name: adapters("check", "--all", "--base", str(upgrade), "--format", name) for name in ("sarif", "junit", "github")
    }
    assert {one.code for one in said.values()} == {6}
    suites = {suite.get("name"): int(suite.get("failures", "-1")) for suite in ET.fromstring(said["junit"].out)}
    assert suites == {"local/old@1": 1, "local/stays@1": 0}
    results = json.loads(said["sarif"].out)["runs"][0]["results"]
    errors = [one["locations"][0]["physicalLocation"] for one in results if one["level"] == "error"]
    assert [place["artifactLocation"]["uri"] for place in errors] == ["local/old@1/adapter_model.safetensors"]
    lines = [line for line in said["github"].out.splitlines() if line.startswith("::error")]
    assert [line.partition("::local/")[2].partition("@")[0] for line in lines] == ["old"]


def test_nobody_to_check_is_a_failure_if_the_base_is_not_known_either(adapters: Adapters, filled: Registry) -> None:
    """A slip of the pen in the base's name must not pass."""
    refusal = adapters.refusal("check", "--all", "--base", "acme/unheard-of")
    assert (refusal["exit_code"], refusal["code"]) == (8, "base-shapes-unknown")
    said = adapters("check", "--all", "--base", "acme/unheard-of", "--format", "junit")
    assert (said.code, "<error" in said.out) == (8, True)


def test_nobody_to_check_is_said_and_is_no_failure(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    adapters.json("base", "add", str(upgrade), "--name", "acme/unheard-of")
    said = adapters("check", "--all", "--base", "acme/unheard-of")
    assert (said.code, said.out) == (0, "")
    assert "nothing was checked" in said.err
    for name, expected in (("json", []), ("sarif", None), ("junit", None)):
        said = adapters("check", "--all", "--base", "acme/unheard-of", "--format", name)
        assert said.code == 0
        assert "nothing was checked" in said.err
        assert expected is None or json.loads(said.out) == expected
    assert not adapters("check", "--all", "--base", "acme/unheard-of", "--quiet").err


def test_a_base_nobody_knows_lets_nobody_pass(adapters: Adapters, filled: Registry) -> None:
    said = adapters("check", "--all", "--base", OTHER, "--json")
    assert said.code == 8
    assert [one["verdict"] for one in json.loads(said.out)] == ["cannot-check"]


def test_the_gravest_says_the_exit_code(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    blob_path(filled, adapters.registry, "stays@1").unlink()
    said = adapters("check", "--all", "--for", "peft", "--json")
    assert said.code == 7
    assert [one["verdict"] for one in json.loads(said.out)] == ["fits", "fits", "cannot-check"]
    assert adapters("check", "--all", "--base", str(upgrade)).code == 6  # a misfit before damage


def test_a_broken_one_before_what_cannot_be_known(
    adapters: Adapters, write_adapter: WriteAdapter, filled: Registry
) -> None:
    filled.push(write_adapter("broken", r=4, base_model_name_or_path=OTHER), allow=["rank-mismatch"])
    assert adapters("check", "--all", "--base", OTHER).code == 3


def test_a_name_that_the_registry_knows_for_the_base_counts(adapters: Adapters, filled: Registry, upgrade: Path) -> None:
    filled.add_base(upgrade, name="acme/base")
    filled.alias_base("openai-community/gpt2", "acme/base")
    for line in (["stays"], ["--all"]):
        said = adapters("check", *line, "--base", "acme/base", "--format", "junit")
        passed = {suite.get("name") for suite in ET.fromstring(said.out) if suite.get("failures") == "0"}
        assert passed == {"local/stays@1"}
