"""Bases on the Hub, asked for by the real ``huggingface_hub`` in a process of its own, whose settings are its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.operations.know_base import know_base
from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes
from tests.hub.hub_server import COMMIT, HubServer, serving

COMMAND = str(Path(sys.executable).with_name("adapters"))
Q = "model.layers.{}.self_attn.q_proj"
WIDTH = 3
LARGE = 1 << 20  #: floats of a tensor that must not travel


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """``org/whole`` in one file, ``org/shards`` in two with an index, ``org/pickled`` without safetensors."""
    for name in ("whole", "shards", "pickled"):
        folder = tmp_path / "hub" / "org" / name
        folder.mkdir(parents=True)
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
        (folder / "config.json").write_text(json.dumps(config))
    square = ("F32", (WIDTH, WIDTH), floats(0.5, count=WIDTH * WIDTH))
    large = ("F32", (LARGE,), bytes(4 * LARGE))
    first, second = {f"{Q.format(0)}.weight": square, "model.norm.weight": large}, {f"{Q.format(1)}.weight": square}
    (tmp_path / "hub/org/whole/model.safetensors").write_bytes(safetensors_bytes({**first, **second}))
    shards = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    for name, tensors in shards.items():
        (tmp_path / "hub/org/shards" / name).write_bytes(safetensors_bytes(tensors))
    index = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    (tmp_path / "hub/org/shards/model.safetensors.index.json").write_text(text)
    (tmp_path / "hub/org/pickled/pytorch_model.bin").write_bytes(b"\x80")
    with serving(tmp_path / "hub") as server:
        yield server


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


@pytest.fixture
def adapters(hub: HubServer, tmp_path: Path) -> Any:
    def run(*arguments: object, offline: bool = False, endpoint: str | None = None) -> Said:
        environment = {
            **os.environ,
            "ADAPTERS_REGISTRY": str(tmp_path / "registry"),
            "HF_ENDPOINT": endpoint or hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
        }
        done = subprocess.run(
            [COMMAND, *map(str, arguments), "--json"], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.parametrize("repository", ["org/whole", "org/shards"])
def test_only_headers_travel_and_the_revision_is_pinned(
    adapters: Any, hub: HubServer, tmp_path: Path, repository: str
) -> None:
    said = adapters("base", "add", f"{repository}@v2")
    assert said.code == 0, said.err
    assert (said.document["id"], said.document["revision"]) == (repository, COMMIT)
    assert said.document["fingerprint"] == know_base(tmp_path / "hub" / repository).fingerprint
    assert sum(sent for name, sent in hub.sent.items() if name.endswith(".safetensors")) < 4 * LARGE / 8
    again = adapters("base", "add", repository)
    assert again.document["created"] is False


def test_a_check_against_a_name_asks_the_hub_and_a_push_does_not(
    adapters: Any, hub: HubServer, write_adapter: WriteAdapter
) -> None:
    fits = write_adapter("fits", lora_tensors(Q.format(0)), base_model_name_or_path="org/whole")
    wrong = write_adapter("wrong", lora_tensors(Q.format(0), width=5), base_model_name_or_path="org/whole")
    said = adapters("check", fits, "--base", "org/whole")
    assert (said.code, said.document["verdict"]) == (0, "fits")
    assert (said.document["base"]["revision"], said.document["base"]["modules"]) == (COMMIT, 3)
    said = adapters("check", wrong, "--base", "hf://org/whole@v2")
    assert (said.code, said.document["verdict"]) == (6, "does-not-fit")
    hub.sent.clear()
    pushed = adapters("push", fits)
    assert [finding["rule"] for finding in pushed.document["findings"]] == ["base-not-checked"]
    assert hub.sent == {}
    assert adapters("base", "add", "org/whole").code == 0
    refused = adapters("push", wrong)
    assert (refused.code, refused.error["code"]) == (6, "wrong-shape")
    assert adapters("check", fits, "--base", "org/whole", offline=True).document["verdict"] == "fits"


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "gone from the Hub"])
def test_what_the_hub_does_not_tell_the_cache_may(
    adapters: Any, tmp_path: Path, write_adapter: WriteAdapter, offline: bool
) -> None:
    """As transformers leaves it: files of a snapshot, and a name for the commit."""
    cached = tmp_path / "hf" / "hub" / "models--org--whole"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots").mkdir()
    (tmp_path / "hub" / "org" / "whole").rename(cached / "snapshots" / COMMIT)
    wrong = write_adapter("wrong", lora_tensors(Q.format(0), width=5), base_model_name_or_path="org/whole")
    said = adapters("check", wrong, "--base", "org/whole", offline=offline)
    assert (said.code, said.document["base"]["revision"]) == (6, COMMIT)
    refused = adapters("push", wrong, offline=offline)
    assert (refused.code, refused.error["code"]) == (6, "wrong-shape")
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("why", "exit_code", "error"),
    [
        ("offline", 8, "hub-unavailable"),
        ("unreachable", 8, "hub-unavailable"),
        ("no such repository", 4, "unknown-repository"),
        ("no such revision", 4, "unknown-repository"),
        ("gated", 9, "gated-repository"),
    ],
)
def test_what_the_hub_does_not_tell_cannot_be_checked(
    adapters: Any, hub: HubServer, write_adapter: WriteAdapter, why: str, exit_code: int, error: str
) -> None:
    adapter = write_adapter("mine", lora_tensors(Q.format(0)), base_model_name_or_path="org/whole")
    base = {"no such repository": "org/nothing", "no such revision": "org/whole@v9"}.get(why, "org/whole")
    unreachable = "http://127.0.0.1:9" if why == "unreachable" else None
    hub.gated = {"org/whole"} if why == "gated" else set()
    said = adapters("base", "add", base, offline=why == "offline", endpoint=unreachable)
    assert (said.code, said.error["code"]) == (exit_code, error)
    assert "Traceback" not in said.err
    allowed = ("--allow", "base-id") if why == "no such repository" else ()
    said = adapters("check", adapter, "--base", base, *allowed, offline=why == "offline", endpoint=unreachable)
    assert (said.code, said.document["verdict"]) == (8, "cannot-check")
    assert "base-shapes-unknown" in {finding["rule"] for finding in said.document["findings"]}


def test_without_safetensors_the_model_is_built_from_its_config(adapters: Any) -> None:
    said = adapters("base", "add", "org/pickled")
    assert said.code == 0, said.err
    assert said.document["module_count"] > 10
