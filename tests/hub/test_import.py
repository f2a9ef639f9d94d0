"""Foreign adapters, from a hub on loopback that may lie, by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from registry.connect import Registry
from registry.domain.names import AdapterName
from registry.errors import (
    CorruptionError,
    InvalidInputError,
    MalformedFileError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from registry.hub.repositories import MAX_PATHS, HuggingFaceHub
from registry.operations.hub_address import HubAddress
from registry.operations.hub_fetch import _wanted, fetch_from_hub
from registry.operations.hub_import import (
    SOURCE,
    Imported,
    NotImported,
    Wanted,
    import_from_hub,
    import_many,
    read_list,
)
from tests.conftest import CONFIG, lora_tensors, safetensors_bytes
from tests.hub.conftest import Command
from tests.hub.peer_server import TOKEN, PeerServer, git_sha1, peer

NAME = AdapterName.parse("acme/support")
ADDRESS = HubAddress("org/lora")


def adapter(value: float = 0.5, **config: object) -> dict[str, bytes]:
    """The two files of a small LoRA."""
    text = json.dumps({**CONFIG, "base_model_name_or_path": "org/base", **config}).encode()
    return {"adapter_config.json": text, "adapter_model.safetensors": safetensors_bytes(lora_tensors(value=value))}


#: What a repository has besides: kept, left where it is, and never to be opened.
BESIDES = {
    ".gitattributes": b"x", "README.md": b"---\nlicense: mit\n---\nA card.\n", "tokenizer.json": b"{}", "trainer_state.json": b"{}",
    ".eval_results/arc.yaml": b"- value: 1\n", "optimizer.pt": b"\x80", "adapter_model.bin": b"\x80", "train.py": b"import os",
    "model.safetensors": b"huge", "checkpoint-5/adapter_config.json": b"{}", "images/logo.png": b"\x89PNG", "notes.txt": b"x",
}  # fmt: skip
KEPT = {"adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json", "trainer_state.json"}
KEPT |= {".eval_results/arc.yaml"}


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file() or path.is_symlink()}


def test_a_pull_takes_what_an_adapter_has_and_nothing_else(command: Command, server: PeerServer, tmp_path: Path) -> None:
    repository = server.have("org/lora", {**adapter(), **BESIDES})
    said = command("pull", "hf://org/lora").document
    assert said["commit"] == repository.head
    assert files_below(tmp_path / "work") == {f"lora/{name}" for name in KEPT}
    for name in KEPT:
        assert (tmp_path / "work" / "lora" / name).read_bytes() == repository.tree[name]
    fetched = {one.path.rpartition("/resolve/")[2].partition("/")[2] for one in server.asked if "/resolve/" in one.path}
    assert fetched == KEPT
    assert {one.token for one in server.asked} == {TOKEN}
    assert not (tmp_path / "registry").exists()
    assert command("pull", "hf://org/lora").error["code"] == "output-exists"


def test_an_import_is_a_version_that_says_where_it_came_from(command: Command, server: PeerServer) -> None:
    repository = server.have("Org/Lora", {**adapter(), **BESIDES})
    repository.tags["v7"] = old = repository.head
    repository.add({**repository.tree, **adapter(0.25)})
    said = command("import", "hf://Org/Lora@v7", "--alias", "staging", "--tag", "customer=acme").document
    source = f"hf://Org/Lora@{old}"
    assert (said["reference"], said["source"], said["created"]) == ("org/lora@1", source, True)
    shown = command("show", "org/lora:staging").document
    assert shown["tags"] == {SOURCE: source, "customer": "acme"}
    assert source in shown["note"]
    assert {file["path"] for file in shown["files"]} == KEPT
    newest = command("import", "hf://Org/Lora", "--as", "org/lora").document
    assert (newest["reference"], newest["source"]) == ("org/lora@2", f"hf://Org/Lora@{repository.head}")


def test_what_was_imported_is_not_fetched_again(command: Command, server: PeerServer) -> None:
    server.have("org/lora", adapter())
    first = command("import", "hf://org/lora").document
    server.asked.clear()
    again = command("import", "hf://org/lora", "--alias", "production").document
    assert (again["reference"], again["created"], again["fetched"]) == (first["reference"], False, False)
    assert [one.path for one in server.asked] == ["/api/models/org/lora"]
    assert command("show", "org/lora:production").document["version"] == 1


def test_what_was_pushed_comes_back(command: Command, server: PeerServer, tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    for name, data in adapter().items():
        (directory / name).write_bytes(data)
    pushed = command("push", directory).document
    sent = command("push", "mine", "--to", "hf://acme/mine").document
    back = command("import", "hf://acme/mine@v1", "--as", "back").document
    assert back["source"] == f"hf://acme/mine@{sent['commit']}"
    there, here = (command("show", name).document for name in ("mine", "back"))
    weights = [{f["path"]: f["digest"] for f in one["files"]}["adapter_model.safetensors"] for one in (there, here)]
    assert weights[0] == weights[1]
    assert pushed["digest"] != back["digest"]  # it has a card now


def test_the_folder_that_is_meant_is_named(command: Command, server: PeerServer, tmp_path: Path) -> None:
    server.have("org/many", {f"{folder}/{name}": data for folder in ("de", "fr") for name, data in adapter().items()})
    refused = command("import", "hf://org/many")
    assert (refused.code, refused.error["code"]) == (3, "no-config")
    assert "--adapter de" in refused.error["hint"]
    said = command("import", "hf://org/many", "--adapter", "fr", "--as", "acme/fr").document
    assert said["source"].endswith("/fr")
    command("pull", "hf://org/many", "--adapter", "de", "-o", tmp_path / "de")
    assert files_below(tmp_path / "de") == set(adapter())


def test_a_list_is_imported_in_parallel_and_goes_on_where_it_was(
    command: Command, server: PeerServer, tmp_path: Path
) -> None:
    for number in range(5):
        server.have(f"org/lora-{number}", adapter(number + 0.5))
    server.have("org/broken", {**adapter(), "adapter_model.safetensors": b"<html>"})
    lines = ["# ours", "", *(f"hf://org/lora-{number}" for number in range(4)), "hf://org/lora-4 acme/four  # renamed"]
    (tmp_path / "list").write_text("\n".join([*lines, "hf://org/broken", "hf://org/absent", "hf://org/lora-0"]))
    said = command("import", "--list", tmp_path / "list", "--jobs", 3)
    assert said.code == 3  # broken input is graver than what is not there
    document = json.loads(said.out)
    assert {one["reference"] for one in document["imported"]} == {*(f"org/lora-{n}@1" for n in range(4)), "acme/four@1"}
    assert {one["source"]: one["error"]["exit_code"] for one in document["refused"]} == {
        "hf://org/broken": 3,
        "hf://org/absent": 4,
    }
    assert all("/tmp" not in one["error"]["message"] for one in document["refused"])
    server.asked.clear()
    again = json.loads(command("import", "--list", tmp_path / "list").out)
    assert all(not one["created"] and not one["fetched"] for one in again["imported"])
    assert {one.path for one in server.asked if "/resolve/" in one.path and "broken" not in one.path} == set()
    text = command("import", "--list", tmp_path / "list", json=False)
    assert (text.code, "0 new, 5 known already, 2 refused" in text.err) == (3, True)


def test_the_versions_of_one_adapter_come_in_the_order_of_the_list(
    store: Registry, server: PeerServer, client: HuggingFaceHub
) -> None:
    repository = server.have("org/lora", adapter(0.0))
    for number in range(6):
        repository.tags[f"v{number}"] = repository.add(adapter(number + 0.5))
    wanted = [Wanted(ADDRESS.at(f"v{number}"), NAME) for number in range(6)]
    done = list(import_many(wanted, hub=client, shelf=store.shelf(), jobs=6))
    assert [one.version.number for one in done if isinstance(one, Imported)] == [1, 2, 3, 4, 5, 6]
    assert [one.source for one in done] == [f"hf://org/lora@{repository.tags[f'v{number}']}" for number in range(6)]


def test_a_list_that_is_interrupted_leaves_what_is_done_and_goes_on_behind_it(
    command: Command, server: PeerServer, tmp_path: Path
) -> None:
    for number in range(3):
        server.have(f"org/lora-{number}", adapter(number + 0.5))
    (tmp_path / "list").write_text("".join(f"hf://org/lora-{number}\n" for number in range(3)))
    reached, go_on = Event(), Event()

    def hold(_method: str, path: str) -> None:
        if path.startswith("/org/lora-2/"):
            reached.set()
            go_on.wait(60)

    server.refuse = hold
    (tmp_path / "temporary").mkdir()
    running = command.start("import", "--list", tmp_path / "list", "--jobs", 1, TMPDIR=str(tmp_path / "temporary"))
    assert reached.wait(60)
    running.send_signal(signal.SIGINT)
    go_on.set()
    _, said = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in said) == (130, False), said
    assert list((tmp_path / "temporary").iterdir()) == []
    server.asked.clear()
    done = command("import", "--list", tmp_path / "list").document["imported"]
    assert {one["source"].partition("@")[0]: one["fetched"] for one in done} == {
        "hf://org/lora-0": False, "hf://org/lora-1": False, "hf://org/lora-2": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [("org/lora", "line 2"), ("hf://org/lora a b", "line 2"), ("hf://org/lora --x", "line 2"), ("hf://org/lora@", "line 2")],
)
def test_a_list_that_cannot_be_meant_is_refused_whole(
    store: Registry, server: PeerServer, tmp_path: Path, line: str, says: str
) -> None:
    (tmp_path / "list").write_text(f"hf://org/lora\n{line}\n")
    with pytest.raises(MalformedFileError, match=says):
        read_list(tmp_path / "list", name=store._called)
    assert server.asked == []


def test_the_checks_of_a_push_hold(command: Command, server: PeerServer, tmp_path: Path) -> None:
    server.have("org/lora", adapter(r=64))
    refused = command("import", "hf://org/lora")
    assert refused.code == 3
    assert "hf://org/lora@" in refused.error["message"]
    assert "/tmp" not in refused.error["message"]
    assert not (tmp_path / "registry").exists()
    allowed = command("import", "hf://org/lora", "--allow", refused.error["code"])
    assert allowed.code == 0, allowed.err


Lie = Callable[[PeerServer], None]
ELSEWHERE = git_sha1(b"another file")


def lying(**facts: object) -> Lie:
    def lie(server: PeerServer) -> None:
        for name, value in facts.items():
            setattr(server.lies, name, value)

    return lie


def _commit_that_changes(server: PeerServer) -> None:
    """The branch moves between list and download, and the hub serves the new files under the old commit."""
    server.lies.sent.update(adapter(0.25))


WEIGHTS = "adapter_model.safetensors"
LISTED = [*adapter(), "README.md"]
HOSTILE: dict[str, tuple[Lie, type[RegistryError], str]] = {
    "a name that climbs": (lying(listed=[*LISTED, "../../x"]), InvalidInputError, "unsafe-path"),
    "a name that climbs inside": (lying(listed=[*LISTED, "LICENSE/../../../x"]), InvalidInputError, "unsafe-path"),
    "an absolute name": (lying(listed=[*LISTED, "/etc/cron.d/x"]), InvalidInputError, "unsafe-path"),
    "backslashes": (lying(listed=[*LISTED, "\\\\h\\s"]), InvalidInputError, "unsafe-path"),
    "a control character": (lying(listed=[*LISTED, "LICENSE\n.md"]), InvalidInputError, "unsafe-path"),
    "10^5 files": (lying(listed=[*LISTED, *(f"f{n}.json" for n in range(100_000))]), InvalidInputError, "too-many-files"),
    "many licences": (lying(listed=[*LISTED, *(f"LICENSE.{n}" for n in range(1000))]), InvalidInputError, "too-many-files"),
    "a file that is not there": (lying(listed=[*LISTED, "tokenizer.json"]), CorruptionError, "hub-changed"),
    "longer than listed": (lying(sent={WEIGHTS: b"x" * 5000}), CorruptionError, "size-mismatch"),
    "shorter than listed": (lying(sent={WEIGHTS: b"x"}), CorruptionError, "size-mismatch"),
    "a small file that is longer": (lying(sizes={"README.md": 3}), CorruptionError, "size-mismatch"),
    "a size below zero": (lying(sizes={WEIGHTS: -1}), UnavailableError, "hub-malformed"),
    "a size in words": (lying(sizes={WEIGHTS: "12"}), UnavailableError, "hub-malformed"),
    "other weights": (lying(sent={WEIGHTS: adapter(0.25)[WEIGHTS]}), CorruptionError, "digest-mismatch"),
    "another digest": (lying(digests={WEIGHTS: hashlib.sha256(b"other").hexdigest()}), CorruptionError, "digest-mismatch"),
    "another file's blob id": (lying(digests={"README.md": ELSEWHERE}), CorruptionError, "digest-mismatch"),
    "no digest": (lying(digests={WEIGHTS: "../../x"}), UnavailableError, "hub-malformed"),
    "a commit that is none": (lying(commit="../../x"), UnavailableError, "hub-malformed"),
    "a commit that moves": (_commit_that_changes, CorruptionError, "digest-mismatch"),
    "a file of this machine": (lying(redirects={WEIGHTS: "file:///etc/passwd"}), UnavailableError, "hub-unavailable"),
    "a redirect to itself": (lying(redirects={WEIGHTS: f"/org/lora/resolve/main/{WEIGHTS}"}), UnavailableError, "hub-unavailable"),
}


@pytest.mark.parametrize("verb", ["pull", "import"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hub_that_lies_is_refused_by_name_and_leaves_nothing(
    store: Registry, server: PeerServer, client: HuggingFaceHub, tmp_path: Path, what: str, verb: str
) -> None:
    lie, family, code = HOSTILE[what]
    server.have("org/lora", {**adapter(), "README.md": b"A card of some length."})
    lie(server)
    before = files_below(tmp_path)
    with pytest.raises(family) as caught:
        if verb == "pull":
            fetch_from_hub(ADDRESS, tmp_path / "into" / "lora", hub=client)
        else:
            import_from_hub(Wanted(ADDRESS, NAME), hub=client, shelf=store.shelf())
    assert caught.value.code == code
    assert "hf://org/lora" in caught.value.message
    assert files_below(tmp_path) == before
    assert not (tmp_path / "into" / "lora").exists()


def test_a_list_as_long_as_is_looked_through(server: PeerServer, client: HuggingFaceHub, tmp_path: Path) -> None:
    server.have("org/lora", adapter())
    server.lies.listed = [*adapter(), *(f"checkpoint-{n}/x" for n in range(MAX_PATHS - 2))]
    assert len(fetch_from_hub(ADDRESS, tmp_path / "into", hub=client).files) == 2


@given(st.lists(st.text(st.sampled_from("a/.\\\0\n~L*"), max_size=8).map(lambda text: f"LICENSE{text}") | st.text(max_size=6)))
def test_no_list_of_names_leads_out_of_the_directory(names: list[str]) -> None:
    listed = [*adapter(), *names]
    try:
        wanted = _wanted(listed, None, "hf://org/lora")
    except InvalidInputError:
        return
    place = Path("/into")
    for path, name in wanted.items():
        assert path in listed
        assert (place / name).parent in (place, place / ".eval_results")
        assert ".." not in (place / name).parts


@given(st.text(max_size=12) | st.from_regex(r"[\w.-]{1,20}/[\w.-]{1,20}\s?", fullmatch=True))
def test_what_passes_for_a_repository_is_one_to_the_library(name: str) -> None:
    try:
        address = HubAddress.parse(f"hf://{name}")
    except InvalidInputError:
        return
    validate_repo_id(address.repository)
    assert address.repository.isascii()
    assert HubAddress.parse(str(address)) == address


def test_the_token_does_not_follow_a_redirect_to_another_host(
    server: PeerServer, client: HuggingFaceHub, tmp_path: Path
) -> None:
    """As the Hub sends large files from a CDN; what comes from there is held against the same digest."""
    files = adapter()
    server.have("org/lora", files)
    with peer() as other:
        elsewhere = other.have("cdn/lora", {WEIGHTS: files[WEIGHTS]})
        server.lies.redirects[WEIGHTS] = f"{other.address}/cdn/lora/resolve/{elsewhere.head}/{WEIGHTS}"
        fetched = fetch_from_hub(ADDRESS, tmp_path / "into", hub=client)
        assert {file.path for file in fetched.files} == set(files)
        assert {one.token for one in server.asked} == {TOKEN}
        assert [one.token for one in other.asked] == [None]
        other.lies.sent[WEIGHTS] = adapter(0.25)[WEIGHTS]
        with pytest.raises(CorruptionError):
            fetch_from_hub(ADDRESS, tmp_path / "again", hub=client)
    assert files_below(tmp_path / "into") == set(files)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"config.json": b"{}", "model.safetensors": b"x"}, "no-config"),
        ({**adapter(), WEIGHTS: None}, "no-weights"),
        ({**adapter(), WEIGHTS: None, "adapter_model.bin": b"\x80"}, "pickle"),
    ],
)
def test_what_is_no_adapter_is_not_fetched(
    server: PeerServer, client: HuggingFaceHub, tmp_path: Path, tree: Mapping[str, bytes | None], code: str
) -> None:
    server.have("org/lora", {name: data for name, data in tree.items() if data is not None})
    with pytest.raises(InvalidInputError) as caught:
        fetch_from_hub(ADDRESS, tmp_path / "into", hub=client)
    assert caught.value.code == code
    assert not any("/resolve/" in one.path for one in server.asked)


def test_a_private_repository_without_a_token_is_as_one_that_is_not_there(server: PeerServer, tmp_path: Path) -> None:
    server.have("org/lora", adapter(), private=True)
    with HuggingFaceHub(server.address, token=False) as anonymous, pytest.raises(NotFoundError):
        fetch_from_hub(ADDRESS, tmp_path / "into", hub=anonymous)


def test_a_revision_that_is_not_there(server: PeerServer, client: HuggingFaceHub, tmp_path: Path) -> None:
    server.have("org/lora", adapter())
    with pytest.raises(NotFoundError, match="hf://org/lora@v9"):
        fetch_from_hub(ADDRESS.at("v9"), tmp_path / "into", hub=client)


def test_what_a_list_refuses_says_why(store: Registry, server: PeerServer, client: HuggingFaceHub) -> None:
    server.have("org/lora", adapter())
    server.lies.sent[WEIGHTS] = adapter(0.25)[WEIGHTS]
    (one,) = import_many([Wanted(ADDRESS, NAME)], hub=client, shelf=store.shelf(), jobs=2)
    assert isinstance(one, NotImported)
    assert one.document()["error"] == {
        "code": "digest-mismatch", "message": one.error.message, "hint": one.error.hint, "exit_code": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("import",), 2),
        (("import", "hf://org/lora", "--list", "x"), 2),
        (("import", "--list", "x", "--as", "y"), 2),
        (("import", "--list", "absent"), 3),
        (("import", "org/lora"), 3),
        (("import", "hf://org/lora@"), 3),
        (("import", "hf://org/lora@a b"), 3),
        (("pull", "hf://org/lora", "--served-only"), 2),
        (("pull", "lora", "--adapter", "x"), 2),
        (("pull", f"sha256:{'0' * 64}"), 2),
    ],
)
def test_what_cannot_be_meant_is_refused(command: Command, server: PeerServer, arguments: tuple[str, ...], code: int) -> None:
    said = command(*arguments)
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert server.asked == []
