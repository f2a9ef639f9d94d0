"""PEFT, transformers and the ``hf`` command, unchanged, against the server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.connect import connect
from registry.operations.manifests import manifest_of
from tests.hub_protocol.running import Server, client_environment, run_client, serving

pytestmark = pytest.mark.slow
SCRIPT = str(Path(__file__).parent / "use_peft.py")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "store") as found:
        yield found


def used(server: Server, tmp_path: Path, step: str, name: str, **environment: str) -> None:
    done = run_client(server, tmp_path / "home", SCRIPT, step, str(tmp_path), name, **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"done": step}


def test_what_peft_pushes_peft_and_transformers_load(server: Server, tmp_path: Path) -> None:
    """By main, tag, alias and suffix; and, once it was fetched, without a server."""
    used(server, tmp_path, "push", "team/tiny")
    registry = connect(server.store, namespace="team")
    first, second = (registry.show(f"tiny@{number}").manifest for number in (1, 2))
    assert first.peft_type == "LORA"
    assert first.rank == 4
    assert first.digest != second.digest
    assert len(registry.catalog.versions(registry.adapter("tiny"), limit=9)) == 2
    registry.set_alias("tiny", "production", 1)
    used(server, tmp_path, "load", "team/tiny")
    used(server, tmp_path, "load", "team/tiny", HF_HUB_OFFLINE="1")
    used(server, tmp_path, "subfolder", "team/tiny")
    assert len(registry.catalog.versions(registry.adapter("tiny"), limit=9)) == 2
    assert not registry.doctor(deep=True).problems


def test_a_foreign_base_loads_from_the_cache(server: Server, tmp_path: Path) -> None:
    """transformers asks the endpoint about a model of somebody else, and goes on with what it has."""
    script = """
import sys, shutil
from pathlib import Path
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
cache = Path(sys.argv[1]) / "hub" / "models--somebody--base"
commit = "1" * 40
(cache / "refs").mkdir(parents=True)
(cache / "refs" / "main").write_text(commit)
GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64)).save_pretrained(cache / "snapshots" / commit)
AutoModelForCausalLM.from_pretrained("somebody/base")
print("loaded")
"""
    done = run_client(server, tmp_path / "home", "-c", script, str(tmp_path / "home"))
    assert done.stdout.endswith("loaded\n"), done.stderr
    assert any("somebody/base" in each["path"] for each in server.requests)


def test_the_hf_command(server: Server, tmp_path: Path, write_adapters: Callable[[Path], None]) -> None:
    write_adapters(tmp_path / "adapters")
    command = str(Path(sys.executable).with_name("hf"))
    environment = client_environment(server, tmp_path / "home", token=None) | {"COLUMNS": "400"}

    def hf(*arguments: str) -> str:
        done = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    hf("auth", "login", "--token", server.tokens["writer"])
    assert "team" in hf("auth", "whoami")
    hf("upload", "team/from-cli", str(tmp_path / "adapters" / "a"))
    hf("repos", "tag", "create", "team/from-cli", "released")
    hf("repos", "branch", "create", "team/from-cli", "production", "--revision", "v1")
    hf("download", "team/from-cli", "--revision", "production", "--local-dir", str(tmp_path / "back"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "adapters" / "a" / name).read_bytes()
    assert "team/from-cli" in hf("models", "ls", "--author", "team")
    assert "team/from-cli" in hf("models", "info", "team/from-cli")
    for of in ((), ("--namespace", "team")):
        listed = hf("repos", "list", *of)
        assert "team/from-cli" in listed
        assert "100.0%" in listed
    hf("repos", "delete", "team/from-cli", "--yes")
    shutil.rmtree(tmp_path / "back")


def test_the_registrys_own_hub_client_pushes_here(
    server: Server, tmp_path: Path, write_adapters: Callable[[Path], None]
) -> None:
    """``adapters push DIR --to hf://…``, and the way back."""
    write_adapters(tmp_path / "adapters")
    _adapters(server, tmp_path, "push", str(tmp_path / "adapters" / "a"), "--to", "hf://team/by-ours")
    _adapters(server, tmp_path, "push", str(tmp_path / "adapters" / "a"), "--to", "hf://team/by-ours")
    registry = connect(server.store, namespace="team")
    assert len(registry.catalog.versions(registry.adapter("by-ours"), limit=9)) == 1
    _adapters(server, tmp_path, "import", "hf://team/by-ours@v1")


def test_a_version_that_is_sent_here_has_the_number_that_it_gets_here(
    server: Server, tmp_path: Path, write_adapters: Callable[[Path], None]
) -> None:
    """In the answer and in the card, also where another version has the number that it comes with."""
    write_adapters(tmp_path / "adapters")
    for name in "ab":
        _adapters(server, tmp_path, "push", str(tmp_path / "adapters" / name), "--name", "acme/support")
    to = ("--to", "hf://team/sl", "--json")
    second = json.loads(_adapters(server, tmp_path, "push", "acme/support@2", *to))
    assert (second["tag"], second["created"]) == ("v1", True)
    first = json.loads(_adapters(server, tmp_path, "push", "acme/support@1", *to))
    assert first["tag"] == "v2"
    registry = connect(server.store, namespace="team")
    for sent in (first, second):
        version = registry.catalog.resolve(registry.reference(f"sl@{sent['tag'][1:]}"))
        assert version.digest.hex[:40] == sent["commit"]
        manifest = manifest_of(version.digest, registry.blobs)
        card = next(entry for entry in manifest.files if entry.path == "README.md")
        assert b"team/sl" in (said := b"".join(registry.blobs.read(card.digest)))
        assert b"revision=" not in said
        number = 1 if sent is first else 2
        shown = json.loads(_adapters(server, tmp_path, "card", f"acme/support@{number}", "--to", "hf://team/sl", "--json"))
        assert (shown["card"].encode(), shown["findings"]) == (said, [])
    for force in ((), ("--force",)):
        again = json.loads(_adapters(server, tmp_path, "push", "acme/support@1", *to, *force))
        assert (again["tag"], again["commit"], again["added"]) == ("v2", first["commit"], [])
        back = _adapters(server, tmp_path, "push", "acme/support@2", *to, *force, code=5)
        assert "this is version 1 of team/sl already, and main is version 2" in back
        assert "meanwhile" not in back
        assert "again" not in back
    assert [each.number for each in registry.catalog.versions(registry.adapter("sl"), limit=9)] == [2, 1]
    refused = _adapters(server, tmp_path, "push", "acme/support@2", "--to", "hf://other/sl", code=9)
    assert "may not push in other" in refused


def test_a_dry_run_says_what_the_push_would_be_told(
    server: Server, tmp_path: Path, write_adapters: Callable[[Path], None]
) -> None:
    write_adapters(tmp_path / "adapters")
    here = str(tmp_path / "adapters" / "a")
    _adapters(server, tmp_path, "push", here, "--to", "hf://team/dry", "--dry-run")
    _adapters(server, tmp_path, "push", here, "--to", "hf://team/dry")
    _adapters(server, tmp_path, "push", here, "--to", "hf://team/dry", "--dry-run")
    for dry in ((), ("--dry-run",)):
        told = _adapters(server, tmp_path, "push", str(tmp_path / "adapters" / "b"), "--to", "hf://team/dry.v1", *dry, code=9)
        assert "a version does not change" in told


def test_what_is_in_no_namespace_of_the_server_is_not_found(server: Server, tmp_path: Path) -> None:
    told = _adapters(server, tmp_path, "pull", "hf://foreign/none", "-o", "out", code=4)
    assert "the Hub does not find what was asked of hf://foreign/none: " in told


def _adapters(server: Server, place: Path, *arguments: str, code: int = 0) -> str:
    command = str(Path(sys.executable).with_name("adapters"))
    environment = {**client_environment(server, place / "home"), "ADAPTERS_REGISTRY": str(place / "mine")}
    done = subprocess.run(
        [command, *arguments], env=environment, cwd=place, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr
