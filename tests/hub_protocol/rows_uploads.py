"""Rows about uploads: every way bytes travel, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, constants

from tests.hub_protocol.probe import Failing, Here, MissingMethodError

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


def versions(here: Here, name: str) -> list[str]:
    return sorted(tag.name for tag in here.api().list_repo_refs(name).tags)


def row_06_upload_folder(here: Here) -> None:
    name = here.fresh()
    here.api().create_repo(name)
    made = here.api().upload_folder(repo_id=name, folder_path=str(here.adapters / "a"))
    assert len(made.oid) == 40
    assert versions(here, name) == ["v1"]
    assert sorted(here.api().list_repo_files(name)) == FILES
    _, _, body = here.asked("GET", f"/v1/adapters/{name}/versions/1")
    assert json.loads(body)["digest"].startswith(f"sha256:{made.oid}")


def row_06_upload_a_whole_model(here: Here) -> None:
    """Is refused before anything is sent, in words that the client shows."""
    name, folder = here.fresh(), here.work / "whole"
    shutil.copytree(here.adapters / "a", folder)
    (folder / "adapter_config.json").rename(folder / "config.json")
    (folder / "adapter_model.safetensors").rename(folder / "model.safetensors")
    here.api().create_repo(name)
    with Failing("HfHubHTTPError", "HTTPError", status=400) as failure:
        here.api().upload_folder(repo_id=name, folder_path=str(folder))
    assert "model.safetensors is a whole model" in failure.text
    assert here.api().list_repo_files(name) == []


def row_06_gitignore(here: Here) -> None:
    """What the folder's own rules leave out stays at home; so it does when the rules are in the repository already."""
    name, folder = here.fresh(), here.work / "ignoring"
    shutil.copytree(here.adapters / "a", folder)
    (folder / ".gitignore").write_text("secret.txt\n*.log\n!keep.log\n/drafts/\n")
    (folder / "drafts").mkdir()
    for path in ("secret.txt", "x.log", "keep.log", "drafts/a.txt", "notes.txt"):
        (folder / path).write_text("kept from others")
    here.api().create_repo(name)
    here.api().upload_folder(repo_id=name, folder_path=str(folder))
    kept = sorted([".gitignore", *FILES, "keep.log", "notes.txt"])
    assert sorted(here.api().list_repo_files(name)) == kept
    assert versions(here, name) == ["v1"]
    for path, what in (("sub/secret.txt", b"secret"), ("sub/other.txt", b"other")):
        here.api().upload_file(repo_id=name, path_in_repo=path, path_or_fileobj=what)
    assert sorted(here.api().list_repo_files(name)) == sorted([*kept, "sub/other.txt"])


def row_07_upload_again(here: Here) -> None:
    name = here.made()
    api = here.api()
    before = api.model_info(name).sha
    again = api.upload_folder(repo_id=name, folder_path=str(here.adapters / "a"))
    assert again.oid == before
    assert versions(here, name) == ["v1"]
    assert api.upload_folder(repo_id=name, folder_path=str(here.adapters / "b")).oid != before
    assert versions(here, name) == ["v1", "v2"]


def row_08_upload_file(here: Here) -> None:
    """From bytes, from a path, and from an open file."""
    name = here.made()
    api = here.api()
    large = os.urandom(3 << 20)
    path = here.work / "large.safetensors"
    path.write_bytes(large)
    api.upload_file(repo_id=name, path_in_repo="more/small.txt", path_or_fileobj=b"small")
    api.upload_file(repo_id=name, path_in_repo="more/bytes.safetensors", path_or_fileobj=large + b"1")
    api.upload_file(repo_id=name, path_in_repo="more/path.safetensors", path_or_fileobj=str(path))
    with open(path, "rb") as file:
        api.upload_file(repo_id=name, path_in_repo="more/open.safetensors", path_or_fileobj=file)
    found = {each.rfilename: each for each in api.model_info(name, files_metadata=True).siblings}
    assert found["more/small.txt"].size == 5
    assert found["more/bytes.safetensors"].size == len(large) + 1
    assert found["more/path.safetensors"].lfs["sha256"] == found["more/open.safetensors"].lfs["sha256"]
    here_again = api.hf_hub_download(name, "more/path.safetensors", cache_dir=here.cache())
    assert Path(here_again).read_bytes() == large
    assert versions(here, name) == ["v1"]


def row_09_upload_without_xet(here: Here) -> None:
    """By Git-LFS, where nothing but the address says who sends."""
    folder = here.work / "unseen"
    shutil.copytree(here.adapters / "b", folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + struct.pack("<f", 0.125))
    name = here.fresh()
    here.api().create_repo(name)
    before = len(here.requests())
    disabled = getattr(constants, "HF_HUB_DISABLE_XET", None)
    constants.HF_HUB_DISABLE_XET = True
    try:
        here.api().upload_folder(repo_id=name, folder_path=str(folder))
    finally:
        constants.HF_HUB_DISABLE_XET = disabled
    asked = here.requests()[before:]
    paths = [(each["method"], each["path"].split("/objects/")[-1].split("/_lfs")[0]) for each in asked]
    assert ("POST", "batch") in paths
    assert ("POST", "verify") in paths
    uploads = [each for each in asked if each["method"] == "PUT"]
    assert [(each["status"], each["authorized"]) for each in uploads] == [(200, False)]
    assert not [each for each in asked if "xet" in each["path"]]
    assert versions(here, name) == ["v1"]


def row_10_many_operations(here: Here) -> None:
    name = here.made()
    api = here.api()
    head = api.model_info(name).sha
    operations = [CommitOperationAdd(f"notes/{number}.txt", f"{number}".encode()) for number in range(300)]
    before = len(api.list_repo_commits(name))
    api.create_commit(name, operations, commit_message="many", parent_commit=head)
    assert len(api.list_repo_commits(name)) == before + 1
    assert len(api.list_repo_files(name)) == 303


def row_11_stale_parent(here: Here) -> None:
    name = here.made()
    api = here.api()
    head = api.model_info(name).sha
    operation = [CommitOperationAdd("notes.txt", b"1")]
    api.create_commit(name, operation, commit_message="one", parent_commit=head)
    with Failing("HfHubHTTPError", "HTTPError", status=412):
        api.create_commit(name, [CommitOperationAdd("notes.txt", b"2")], commit_message="two", parent_commit=head)
    assert "notes.txt" in api.list_repo_files(name)


def row_12_pull_request(here: Here) -> None:
    name = here.made()
    head = here.api().model_info(name).sha
    with Failing("HfHubHTTPError", "HTTPError"):
        here.api().upload_file(repo_id=name, path_in_repo="notes.txt", path_or_fileobj=b"1", create_pr=True)
    assert here.api().model_info(name).sha == head


def row_13_upload_elsewhere(here: Here) -> None:
    name = here.made()
    api = here.api()
    api.create_branch(name, branch="production")
    with Failing("RevisionNotFoundError"):
        api.upload_file(repo_id=name, path_in_repo="n.txt", path_or_fileobj=b"1", revision="nowhere")
    with Failing("HfHubHTTPError", "HTTPError", status=403) as failure:
        api.upload_file(repo_id=name, path_in_repo="n.txt", path_or_fileobj=b"1", revision="production")
    assert "adapters alias set" in failure.text
    for revision in ("v1", api.model_info(name).sha):
        with Failing("HfHubHTTPError", "HTTPError", status=403):
            api.upload_file(repo_id=name, path_in_repo="n.txt", path_or_fileobj=b"1", revision=revision)
    for suffixed in (f"{name}.v1", f"{name}.production"):
        with Failing("HfHubHTTPError", "HTTPError", status=403):
            api.upload_file(repo_id=suffixed, path_in_repo="n.txt", path_or_fileobj=b"1")
    assert "n.txt" not in api.list_repo_files(name)


def row_14_upload_nowhere(here: Here) -> None:
    with Failing("RepositoryNotFoundError") as failure:
        here.api().upload_folder(repo_id="team/nothing", folder_path=str(here.adapters / "a"))
    assert "Creating a commit assumes that the repo already exists" in failure.text


def row_15_delete(here: Here) -> None:
    name = here.made()
    api = here.api()
    api.create_commit(
        name,
        [CommitOperationAdd("notes/a.txt", b"1"), CommitOperationAdd("notes/b.txt", b"2"), CommitOperationAdd("c.log", b"3")],
        commit_message="notes",
    )
    api.delete_file("c.log", name)
    api.delete_folder("notes", name)
    assert sorted(api.list_repo_files(name)) == FILES
    with Failing("EntryNotFoundError"):
        api.delete_file("c.log", name)
    with Failing("HfHubHTTPError", "HTTPError", status=422) as failure:
        api.delete_file("adapter_model.safetensors", name)
    assert "keeps its files" in failure.text
    assert versions(here, name) == ["v1"]


def row_16_copy(here: Here) -> None:
    if here.version < (0, 23):
        raise MissingMethodError("CommitOperationCopy of regular files")
    name = here.made()
    api = here.api()
    operations = [
        CommitOperationCopy("adapter_model.safetensors", "copies/weights.safetensors"),
        CommitOperationCopy("README.md", "copies/README.md"),
    ]
    api.create_commit(name, operations, commit_message="copies")
    found = {each.rfilename: each for each in api.model_info(name, files_metadata=True).siblings}
    assert found["copies/README.md"].blob_id == found["README.md"].blob_id
    assert found["copies/weights.safetensors"].lfs["sha256"] == found["adapter_model.safetensors"].lfs["sha256"]


def row_17_odd_names(here: Here) -> None:
    name = here.made()
    api = here.api()
    odd = {"empty.txt": b"", "a b/ü?#%.txt": b"odd", "one/two/three/four.json": b"{}", "+&=.txt": b"more"}
    api.create_commit(name, [CommitOperationAdd(path, data) for path, data in odd.items()], commit_message="odd")
    cache = here.cache()
    for path, data in odd.items():
        assert Path(api.hf_hub_download(name, path, cache_dir=cache)).read_bytes() == data, path
    assert set(odd) <= set(api.list_repo_files(name))


def row_51_pickles_are_left_out(here: Here) -> None:
    """As Trainer leaves them; weights in one are refused with what to do."""
    folder = here.work / "trained"
    shutil.copytree(here.adapters / "a", folder)
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / "optimizer.pt").write_bytes(b"\x80\x04.")
    name = here.fresh()
    here.api().create_repo(name)
    here.api().upload_folder(repo_id=name, folder_path=str(folder))
    assert sorted(here.api().list_repo_files(name)) == FILES
    for path, word in (("adapter_model.bin", "safe_serialization"), ("run.py", "code"), ("x/../../y.txt", "")):
        with Failing("HfHubHTTPError", "HTTPError", "BadRequestError", "ValueError") as failure:
            here.api().upload_file(repo_id=name, path_in_repo=path, path_or_fileobj=b"x" * 10)
        assert word in failure.text, failure.text
    assert sorted(here.api().list_repo_files(name)) == FILES


def row_52_broken_adapters_are_refused(here: Here) -> None:
    """With every reason, and nothing changes."""
    name = here.made()
    head = here.api().model_info(name).sha
    config = json.loads((here.adapters / "a" / "adapter_config.json").read_text())
    with Failing("HfHubHTTPError", "HTTPError", "BadRequestError") as failure:
        here.api().upload_file(
            repo_id=name, path_in_repo="adapter_config.json", path_or_fileobj=json.dumps({**config, "r": 7}).encode()
        )
    assert failure.response.status_code in (400, 422)
    assert "r" in failure.text
    with Failing("HfHubHTTPError", "HTTPError", "BadRequestError"):
        here.api().upload_file(repo_id=name, path_in_repo="adapter_config.json", path_or_fileobj=b"{nothing")
    if here.version >= (0, 26):  # before, cards were not looked at
        with Failing("ValueError"):
            here.api().upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=b"---\n[: {\n---\n")
    assert here.api().model_info(name).sha == head


def row_53_file_by_file(here: Here) -> None:
    """An adapter that comes a file at a time is a version when it is whole, and its card changes none."""
    name = here.fresh()
    api = here.api()
    api.create_repo(name)
    for path in FILES[:2]:
        api.upload_file(repo_id=name, path_in_repo=path, path_or_fileobj=str(here.adapters / "a" / path))
    assert versions(here, name) == []
    assert sorted(api.list_repo_files(name)) == FILES[:2]
    with open(here.adapters / "a" / FILES[2], "rb") as weights:
        api.upload_file(repo_id=name, path_in_repo=FILES[2], path_or_fileobj=weights)
    assert versions(here, name) == ["v1"]
    first = api.model_info(name, revision="v1").sha
    api.upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=io.BytesIO(b"# new\n"))
    assert versions(here, name) == ["v1"]
    assert api.model_info(name, revision="v1").sha == first != api.model_info(name).sha
    api.create_commit(
        name,
        [
            CommitOperationAdd(FILES[2], str(here.adapters / "b" / FILES[2])),
            CommitOperationDelete("README.md"),
        ],
        commit_message="better",
    )
    assert versions(here, name) == ["v1", "v2"]
    assert sorted(api.list_repo_files(name)) == FILES[1:]


def row_54_many_files_are_one_version(here: Here) -> None:
    """Newer clients commit a large folder in parts, of which the first lacks files of the adapter."""
    name = here.fresh()
    folder = here.work / "many"
    shutil.copytree(here.adapters / "a", folder)
    for number in range(270):
        (folder / f"aaa_{number:03}.json").write_text(f'{{"n": {number}}}')
    here.api().create_repo(name)
    here.api().upload_folder(repo_id=name, folder_path=str(folder))
    assert versions(here, name) == ["v1"]
    assert len(here.api().list_repo_files(name)) == 273
    _, _, body = here.asked("GET", f"/v1/adapters/{name}/versions/1")
    assert len(json.loads(body)["files"]) == 273


def row_55_two_who_push_at_once(here: Here) -> None:
    """One has asked what is here already when the other's push comes in: each version is one of the two, whole."""
    name, one, other = here.made(), here.work / "one", here.work / "other"
    shutil.copytree(here.adapters / "a", one)
    weights = (one / FILES[2]).read_bytes()
    (one / FILES[2]).write_bytes(weights[:-4] + struct.pack("<f", 0.75))  # as long, and with the same beginning
    shutil.copytree(here.adapters / "b", other)
    config = json.loads((other / FILES[1]).read_text())
    (other / FILES[1]).write_text(json.dumps({**config, "lora_alpha": 64}))
    with after_asking(lambda: here.api().upload_folder(repo_id=name, folder_path=str(other), commit_message="other")):
        here.api().upload_folder(repo_id=name, folder_path=str(one), commit_message="one")
    assert versions(here, name) == ["v1", "v2", "v3"]
    for tag, folder in (("v2", other), ("v3", one), ("main", one)):
        assert read(here, name, tag, *FILES[1:]) == [(folder / path).read_bytes() for path in FILES[1:]]


def row_56_many_files_twice_are_two_versions(here: Here) -> None:
    """What makes the adapter is asked about in two goes, between which newer clients commit."""
    name, folder = here.fresh(), here.work / "twice"
    shutil.copytree(here.adapters / "a", folder)
    (folder / "data").mkdir()
    here.api().create_repo(name)
    paths = [*FILES[1:], "tokenizer.json"]
    wanted = {}
    for tag, alpha, adapter in (("v1", 4, "a"), ("v2", 8, "b")):
        for number in range(260):
            (folder / "data" / f"{number:03}.txt").write_text(f"{number} {alpha if number > 250 else ''}")
        config = json.loads((folder / FILES[1]).read_text())
        (folder / FILES[1]).write_text(json.dumps({**config, "lora_alpha": alpha}))
        (folder / "tokenizer.json").write_text(json.dumps({"of": alpha}))
        shutil.copy(here.adapters / adapter / FILES[2], folder / FILES[2])
        here.api().upload_folder(repo_id=name, folder_path=str(folder))
        wanted[tag] = [(folder / path).read_bytes() for path in paths]
    assert versions(here, name) == ["v1", "v2"]
    assert {tag: read(here, name, tag, *paths) for tag in wanted} == wanted
    assert here.api().upload_folder(repo_id=name, folder_path=str(folder)).oid == here.api().model_info(name).sha
    assert versions(here, name) == ["v1", "v2"]


def row_57_upload_large_folder(here: Here) -> None:
    """It commits what it has when it has it; newer clients do not have it any more."""
    here.need("upload_large_folder")
    name, folder = here.fresh(), here.work / "tool"
    shutil.copytree(here.adapters / "large", folder)
    (folder / "data").mkdir()
    wanted = {}
    for tag, alpha in (("v1", 4), ("v2", 8)):
        for number in range(200):
            (folder / "data" / f"{number:03}.txt").write_text(f"{number} {alpha}")
        config = json.loads((folder / FILES[1]).read_text())
        (folder / FILES[1]).write_text(json.dumps({**config, "lora_alpha": alpha}))
        weights = (folder / FILES[2]).read_bytes()
        (folder / FILES[2]).write_bytes(weights[:-4] + struct.pack("<f", alpha / 16))
        here.api().upload_large_folder(repo_id=name, folder_path=str(folder), repo_type="model", print_report=False)
        wanted[tag] = [(folder / path).read_bytes() for path in FILES[1:]]
    assert versions(here, name) == ["v1", "v2"]
    assert {tag: read(here, name, tag, *FILES[1:]) for tag in wanted} == wanted
    assert here.api().model_info(name, revision="v2").sha in [each.commit_id for each in here.api().list_repo_commits(name)]


def read(here: Here, name: str, revision: str, *paths: str) -> list[bytes]:
    place = here.cache()
    return [Path(here.api().hf_hub_download(name, path, revision=revision, cache_dir=place)).read_bytes() for path in paths]


@contextmanager
def after_asking(meanwhile: Callable[[], object]) -> Iterator[None]:
    """Once, between what the client asks before it uploads and what it sends then."""
    holders = [each for name, each in list(sys.modules.items()) if name.startswith("huggingface_hub.")]
    holders = [each for each in holders if "_fetch_upload_modes" in vars(each)]
    original = holders[0]._fetch_upload_modes

    def ask(*arguments: object, **options: object) -> object:
        answer = original(*arguments, **options)
        for each in holders:
            each._fetch_upload_modes = original
        meanwhile()
        return answer

    for each in holders:
        each._fetch_upload_modes = ask
    yield
