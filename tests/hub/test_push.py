"""A version, or a directory, to a hub on loopback, by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.errors import ConflictError, CorruptionError, DeniedError, InvalidInputError, UnavailableError
from registry.hub.repositories import HuggingFaceHub
from registry.operations.hub_push import PUSHED, Sent, push_to_hub, record_push
from registry.operations.parcel import parcel_of_version
from tests.conftest import WriteAdapter, floats, lora_tensors
from tests.hub.conftest import Command
from tests.hub.peer_server import TOKEN, PeerServer, Repository, is_large, peer

# huggingface_hub's own uploads by Git-LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

BASE = "org/base"


@pytest.fixture
def trained(write_adapter: WriteAdapter) -> Path:
    """As a trainer leaves it: with what belongs to an adapter, and with what does not."""
    directory = write_adapter("support", base_model_name_or_path=BASE)
    (directory / "README.md").write_text("---\nlicense: mit\nlanguage: [no]\n---\n# Support\nWritten by hand.\n")
    (directory / "tokenizer_config.json").write_text("{}")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    for name in ("trainer_state.json", "optimizer.pt", "adapter_model.bin", "rng_state.pth", "training_args.bin"):
        (directory / name).write_bytes(b"{}")
    (directory / "checkpoint-5").mkdir()
    (directory / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"x")
    return directory


SENT = {"README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer_config.json"}
SENT |= {".gitattributes"}


def test_a_version_becomes_a_commit_and_a_tag(command: Command, server: PeerServer, trained: Path) -> None:
    assert command("push", trained, "--eval", "arc_easy/acc=0.81").code == 0
    sent = command("push", "support", "--to", "hf://acme/support").document
    repository = server.repositories["acme/support"]
    assert (sent["commit"], sent["tag"], sent["private"], sent["created"]) == (repository.head, "v1", True, True)
    assert repository.private
    assert repository.tags == {"v1": repository.head}
    assert set(repository.tree) == SENT
    for name in SENT - {"README.md", ".gitattributes"}:
        assert repository.tree[name] == (trained / name).read_bytes()
    assert {file["path"]: file["sha256"] for file in sent["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in repository.tree.items() if path != ".gitattributes"
    }
    shown = command("show", "support@1").document
    assert shown["tags"] == {PUSHED: f"hf://acme/support@{repository.head}"}
    card = repository.tree["README.md"].decode()
    assert command("card", "support", "--to", "hf://acme/support").document["card"] == card
    assert "Written by hand." in card


def test_the_same_again_is_the_same_commit(command: Command, server: PeerServer, trained: Path) -> None:
    command("push", trained)
    first = command("push", "support", "--to", "hf://acme/support").document
    repository = server.repositories["acme/support"]
    commits = len(repository.commits)
    server.asked.clear()
    again = command("push", "support", "--to", "hf://acme/support").document
    assert (again["commit"], again["added"], again["deleted"]) == (first["commit"], [], [])
    assert (len(repository.commits), server.writes()) == (commits, [])
    repository.tags.clear()  # as after a push that was cut before its last step
    assert command("push", "support", "--to", "hf://acme/support").document["commit"] == first["commit"]
    assert (len(repository.commits), repository.tags) == (commits, {"v1": first["commit"]})


def test_a_dry_run_writes_nothing(command: Command, server: PeerServer, trained: Path) -> None:
    command("push", trained)
    said = command("push", "support", "--to", "hf://acme/support", "--dry-run", "--public").document
    assert (said["commit"], said["created"], said["private"], said["tag"]) == (None, True, False, "v1")
    assert set(said["added"]) == SENT - {".gitattributes"}
    assert (server.writes(), server.repositories) == ([], {})
    assert command("show", "support").document["tags"] == {}


def test_a_directory_goes_without_a_registry_and_without_a_tag(
    command: Command, server: PeerServer, trained: Path, tmp_path: Path
) -> None:
    sent = command("push", trained, "--to", "hf://acme/support", "--public").document
    repository = server.repositories["acme/support"]
    assert (sent["tag"], repository.tags, repository.private) == (None, {}, False)
    assert set(repository.tree) == SENT
    assert not (tmp_path / "registry").exists()


def test_the_next_version_takes_the_place_of_the_last(
    command: Command, server: PeerServer, trained: Path, write_adapter: WriteAdapter
) -> None:
    command("push", trained)
    first = command("push", "support@1", "--to", "hf://acme/support").document
    second = write_adapter("second", lora_tensors(value=0.25), base_model_name_or_path=BASE)
    command("push", second, "--name", "support")
    sent = command("push", "support@2", "--to", "hf://acme/support").document
    repository = server.repositories["acme/support"]
    assert sent["deleted"] == ["chat_template.jinja", "tokenizer_config.json"]
    assert "adapter_config.json" not in sent["added"]
    assert repository.tags == {"v1": first["commit"], "v2": sent["commit"]}
    server.asked.clear()
    again = command("push", "support@1", "--to", "hf://acme/support").document
    assert (again["commit"], repository.head, server.writes()) == (first["commit"], sent["commit"], [])


LOCAL = "/home/me/models/base"


@pytest.fixture
def local(write_adapter: WriteAdapter) -> Path:
    """Trained on a directory, and every file says so."""
    auto = {"base_model_class": "X", "parent_library": "/home/me/lib"}
    directory = write_adapter(
        "mine", base_model_name_or_path=LOCAL, tokenizer_name_or_path=LOCAL, auto_mapping=auto
    )
    text = f"Of {LOCAL}, with `{LOCAL}/config.json` and /home/me/data.jsonl; see https://example.com/a/b and and/or.\n"
    (directory / "README.md").write_text(
        f"---\nbase_model: {LOCAL}\ntags: ['base_model:adapter:{LOCAL}']\n---\n{text}"
    )
    settings = f'{{"name_or_path" :"{LOCAL}/", "extra": [1e-05, "{LOCAL}-2", {{"{LOCAL}": "{LOCAL}"}}]}}'
    (directory / "tokenizer_config.json").write_text(settings)
    (directory / "tokenizer.json").write_text(json.dumps({"name_or_path": LOCAL, "vocab": {"/usr/bin": 0}}))
    (directory / "chat_template.jinja").write_text("{# ~/templates/mine.jinja #}<a></b></c>{{ x }}")
    return directory


def test_where_the_base_was_on_this_machine_does_not_leave_it(
    command: Command, server: PeerServer, local: Path
) -> None:
    """A value that is the base's path becomes its repository, and nothing else of a file changes."""
    command("push", local)
    refused = command("push", "mine", "--to", "hf://acme/mine")
    assert (refused.code, refused.error["code"]) == (3, "base-unnamed")
    assert LOCAL in refused.error["message"]
    assert (server.asked, server.repositories) == ([], {})
    assert command("push", "mine", "--to", "hf://acme/mine", "--base", BASE).code == 0
    tree = server.repositories["acme/mine"].tree
    own = json.loads((local / "adapter_config.json").read_text())
    config = json.loads(tree["adapter_config.json"])
    assert config == {**own, "base_model_name_or_path": BASE, "tokenizer_name_or_path": BASE}
    settings = tree["tokenizer_config.json"].decode()
    assert settings == f'{{"name_or_path" :"{BASE}", "extra": [1e-05, "{LOCAL}-2", {{"{LOCAL}": "{BASE}"}}]}}'
    assert json.loads(tree["tokenizer.json"]) == {"name_or_path": BASE, "vocab": {"/usr/bin": 0}}
    assert f"Of {BASE}, with `{BASE}/config.json` and" in tree["README.md"].decode()


def test_other_paths_of_a_machine_are_said(command: Command, server: PeerServer, local: Path) -> None:
    sent = command("push", local, "--to", "hf://acme/mine", "--base", BASE).document
    said = {each["where"]: each for each in sent["findings"] if each["rule"] == "local-path"}
    assert set(said) == {"README.md", "adapter_config.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {each["severity"] for each in said.values()} == {"warning"}
    assert "'/home/me/data.jsonl':" in said["README.md"]["message"]
    assert "'/home/me/lib':" in said["adapter_config.json"]["message"]
    assert f"'{LOCAL}-2', '{LOCAL}':" in said["tokenizer_config.json"]["message"]
    assert "'~/templates/mine.jinja':" in said["chat_template.jinja"]["message"]
    assert server.repositories["acme/mine"].tree["chat_template.jinja"] == (local / "chat_template.jinja").read_bytes()


def test_the_base_that_a_push_was_told_is_what_is_sent(
    command: Command, server: PeerServer, write_adapter: WriteAdapter
) -> None:
    directory = write_adapter("mine", base_model_name_or_path="/home/me/base")
    command("push", directory, "--base", f"{BASE}@main")
    assert command("push", "mine", "--to", "hf://acme/mine").code == 0
    config = json.loads(server.repositories["acme/mine"].tree["adapter_config.json"])
    assert config["base_model_name_or_path"] == BASE


@pytest.fixture
def pushed(store: Registry, trained: Path) -> Registry:
    store.push(trained, name="acme/support")
    return store


def _send(
    store: Registry, hub: HuggingFaceHub, work: Path, *, private: bool | None = None, force: bool = False
) -> Sent:
    version = store.catalog.resolve(store.reference("acme/support"))
    place = work / f"parcel-{len(list(work.iterdir()))}"
    place.mkdir()
    parcel = parcel_of_version(version, "acme/support", place, base=None, shelf=store.shelf())
    sent = push_to_hub(parcel, "acme/support", hub=hub, private=private, force=force, pause=lambda _seconds: None)
    record_push(version, sent, store.catalog)
    return sent


def _refused_before_anything_is_sent(
    server: PeerServer, store: Registry, client: HuggingFaceHub, work: Path, private: bool | None = None
) -> ConflictError:
    before = {name: (each.head, dict(each.tags)) for name, each in server.repositories.items()}
    with pytest.raises(ConflictError) as caught:
        _send(store, client, work, private=private)
    assert server.writes() == []
    assert {name: (each.head, each.tags) for name, each in server.repositories.items()} == before
    assert store.show("acme/support").version.tags == {}
    return caught.value


def test_a_tag_of_other_content_is_not_moved_unasked(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    repository = server.have("acme/support", {"adapter_config.json": b"{}"})
    repository.tags["v1"] = old = repository.head
    assert _refused_before_anything_is_sent(server, pushed, client, tmp_path).code == "tag-exists"
    sent = _send(pushed, client, tmp_path, force=True)
    assert repository.tags["v1"] == sent.commit == repository.head != old


def test_a_repository_of_something_else_is_not_emptied(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    server.have("acme/support", {"model.safetensors": b"weights", "README.md": b"a model"})
    assert _refused_before_anything_is_sent(server, pushed, client, tmp_path).code == "other-repository"
    assert _send(pushed, client, tmp_path, force=True).deleted == ("model.safetensors",)


@pytest.mark.parametrize("private", [True, False])
def test_a_push_does_not_change_who_may_see(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path, private: bool
) -> None:
    server.have("acme/support", {"README.md": b"empty"}, private=not private)
    assert _refused_before_anything_is_sent(server, pushed, client, tmp_path, private).code == "other-visibility"
    assert _send(pushed, client, tmp_path).private is not private


def test_what_somebody_else_commits_meanwhile_is_not_overwritten(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    repository = server.have("acme/support", {"README.md": b"old"})

    def somebody(repository: Repository) -> None:
        repository.add({**repository.tree, "README.md": b"theirs"})

    server.before_commit = somebody
    with pytest.raises(ConflictError) as caught:
        _send(pushed, client, tmp_path)
    assert caught.value.code == "hub-moved"
    assert (repository.tree, repository.tags) == ({"README.md": b"theirs"}, {})
    assert pushed.show("acme/support").version.tags == {}


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    server.after_commit = lambda _repository: "drop"
    sent = _send(pushed, client, tmp_path)
    repository = server.repositories["acme/support"]
    assert repository.titles == ["initial commit", "acme/support@1"]
    assert repository.tags == {"v1": sent.commit} == {"v1": repository.head}


@pytest.mark.parametrize("fault", [(503, b"{}"), "drop"])
def test_a_hub_that_is_unwell_for_a_moment_is_asked_again(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path, fault: tuple[int, bytes] | str
) -> None:
    faults = [fault, fault]
    server.refuse = lambda _method, path: faults.pop() if "/commit/" in path and faults else None
    sent = _send(pushed, client, tmp_path)
    assert server.repositories["acme/support"].titles == ["initial commit", "acme/support@1"]
    assert sent.commit == server.repositories["acme/support"].head


def test_a_hub_that_stays_unwell_is_said_to_be(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    server.refuse = lambda _method, path: (503, b"{}") if "/commit/" in path else None
    with pytest.raises(UnavailableError) as caught:
        _send(pushed, client, tmp_path)
    assert "hf://acme/support" in caught.value.message
    assert server.repositories["acme/support"].tags == {}


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_is_told(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path, status: int
) -> None:
    server.have("acme/support", {"README.md": b"theirs"})
    server.refuse = lambda _method, path: (status, b'{"error": "not on Sundays"}') if "preupload" in path else None
    with pytest.raises(DeniedError) as caught:
        _send(pushed, client, tmp_path)
    assert caught.value.message.endswith(": not on Sundays")
    assert server.repositories["acme/support"].tree == {"README.md": b"theirs"}


def test_a_hub_that_keeps_other_bytes_is_found_out(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    server.lies.keeps = lambda path, data: data + b" " if path == "adapter_config.json" else data
    with pytest.raises(CorruptionError) as caught:
        _send(pushed, client, tmp_path)
    assert caught.value.code == "hub-altered"
    assert server.repositories["acme/support"].tags == {}


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    pushed: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    with peer() as storage:
        server.storage = storage.address
        storage.stored = server.stored
        _send(pushed, client, tmp_path)
    assert {one.token for one in server.asked} == {TOKEN}
    assert [(one.method, one.token) for one in storage.asked] == [("PUT", None)]
    assert all(is_large(path) for path in server.repositories["acme/support"].tree if path.endswith("safetensors"))


def test_a_broken_adapter_is_refused_as_a_push_refuses_it(
    command: Command, server: PeerServer, write_adapter: WriteAdapter
) -> None:
    broken = write_adapter(
        "broken",
        {name: (dtype, shape, floats(float("nan"), count=6)) for name, (dtype, shape, _) in lora_tensors().items()},
    )
    refused = command("push", broken, "--to", "hf://acme/broken")
    assert (refused.code, refused.error["code"]) == (3, "nonfinite")
    assert server.repositories == {}
    assert command("push", broken, "--to", "hf://acme/broken", "--allow", "nonfinite").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("support", "--to", "acme/support"), 3),
        (("support", "--to", "hf://acme/support@v1"), 3),
        (("support", "--to", "hf://a/b/c"), 3),
        (("support", "--to", "hf://acme/support", "--name", "other"), 2),
        (("support", "--public"), 2),
        (("support", "--force"), 2),
        (("nothing", "--to", "hf://acme/support"), 4),
    ],
)
def test_what_cannot_be_meant_is_refused(
    command: Command, server: PeerServer, trained: Path, arguments: tuple[str, ...], code: int
) -> None:
    command("push", trained)
    said = command("push", *arguments)
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert (server.asked, server.repositories) == ([], {})


@pytest.mark.slow
def test_peft_loads_what_was_sent(command: Command, server: PeerServer, trained: Path, tmp_path: Path) -> None:
    """PEFT, unmodified, by repository and tag."""
    command("push", trained)
    command("push", "support", "--to", "hf://acme/support")
    program = """
import json
from peft import PeftConfig
from peft.utils.save_and_load import load_peft_weights
config = PeftConfig.from_pretrained("acme/support", revision="v1")
weights = load_peft_weights("acme/support", revision="v1", device="cpu")
print(json.dumps([config.base_model_name_or_path, config.r, {name: weight.sum().item() for name, weight in weights.items()}]))
"""
    own = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **own}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    base, rank, sums = json.loads(done.stdout)
    assert (base, rank, sorted(sums)) == (BASE, 2, sorted(lora_tensors()))
    assert set(sums.values()) == {0.5 * 6}


def test_a_merged_checkpoint_is_no_adapter(pushed: Registry) -> None:
    from dataclasses import replace

    from registry.domain.manifest import MERGED
    from registry.operations.manifests import manifest_of

    version = pushed.catalog.resolve(pushed.reference("acme/support"))
    manifest = replace(manifest_of(version.digest, pushed.blobs), peft_type=MERGED)
    pushed.blobs.put(manifest.digest, iter((manifest.canonical_bytes,)))
    with pushed.catalog.writing() as writer:
        writer.add_version(version.adapter, manifest)
    with pytest.raises(InvalidInputError) as caught:
        pushed.push_to_hub("acme/support", "hf://acme/support")
    assert caught.value.code == "not-an-adapter"
