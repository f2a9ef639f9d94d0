"""Rows about what a repository is said to hold."""

from __future__ import annotations

import inspect
import json

from huggingface_hub import HfApi, HfFileSystem

from tests.hub_protocol.probe import Failing, Here

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
BASE = "openai-community/gpt2"


def row_22_model_info(here: Here) -> None:
    name = here.made()
    api = here.api()
    info = api.model_info(name)
    assert len(info.sha) == 40
    assert (info.id, info.author, info.private) == (name, "team", False)
    assert [each.rfilename for each in info.siblings] == FILES
    assert {"peft", "lora", f"base_model:adapter:{BASE}"} <= set(info.tags)
    assert api.model_info(name, revision="v1").sha == api.model_info(name, revision=info.sha).sha == info.sha
    assert api.model_info(name, revision="refs/tags/v1").sha == info.sha
    weights = api.model_info(name, revision="v1", files_metadata=True).siblings[2]
    assert weights.size == (here.adapters / "a" / FILES[2]).stat().st_size
    assert len(weights.lfs["sha256"]) == 64
    if here.version >= (0, 25):
        assert api.model_info(name, expand=["sha", "tags"]).sha == info.sha


def row_22_card(here: Here) -> None:
    """What its README says is found, also by those who look for it."""
    name = here.made()
    api = here.api()
    card = b"---\nlicense: mit\nlanguage: de\ntags: [from-the-card]\ndatasets: [org/data]\n---\n# Mine\n"
    api.upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=card)
    info = api.model_info(name)
    data = info.card_data
    assert (data.license, data.language, data.datasets, data.base_model) == ("mit", "de", ["org/data"], BASE)
    assert {"from-the-card", "de", "dataset:org/data", "license:mit", "peft"} <= set(info.tags)
    for words in ("license:mit", ["de", "dataset:org/data"]):
        assert name in {model.id for model in api.list_models(author="team", filter=words, limit=1000)}
    assert not list(api.list_models(author="team", filter="license:none"))


def row_23_listing(here: Here) -> None:
    """The server gives four files at a time."""
    name = here.made()
    api = here.api()
    here.need("list_repo_tree")
    for path in ("sub/one.txt", "sub/two.txt", "sub/deep/three.txt", "z.txt"):
        api.upload_file(repo_id=name, path_in_repo=path, path_or_fileobj=path.encode())
    assert sorted(api.list_repo_files(name)) == sorted([*FILES, "sub/one.txt", "sub/two.txt", "sub/deep/three.txt", "z.txt"])
    top = {each.path: type(each).__name__ for each in api.list_repo_tree(name)}
    assert top == {**dict.fromkeys([*FILES, "z.txt"], "RepoFile"), "sub": "RepoFolder"}
    assert {each.path for each in api.list_repo_tree(name, "sub")} == {"sub/one.txt", "sub/two.txt", "sub/deep"}
    assert {each.path for each in api.list_repo_tree(name, "sub/deep")} == {"sub/deep/three.txt"}
    expanded = {each.path: each for each in api.list_repo_tree(name, recursive=True, expand=True)}
    assert expanded["z.txt"].last_commit is not None
    assert len(expanded) == 9
    with Failing("EntryNotFoundError"):
        list(api.list_repo_tree(name, "nothing"))


def row_24_paths_info(here: Here) -> None:
    here.need("get_paths_info")
    name = here.made()
    api = here.api()
    api.upload_file(repo_id=name, path_in_repo="sub/one.txt", path_or_fileobj=b"1")
    found = api.get_paths_info(name, ["adapter_config.json", "sub", "nothing"], expand=True)
    assert {each.path for each in found} == {"adapter_config.json", "sub"}
    status, _, body = here.asked("POST", f"/api/models/{name}/paths-info/main", {"paths": ["README.md", "no"]})
    assert (status, [each["path"] for each in json.loads(body)]) == (200, ["README.md"])


def row_25_revision_exists(here: Here) -> None:
    here.need("revision_exists")
    name = here.made()
    api = here.api()
    api.create_branch(name, branch="production")
    sha = api.model_info(name).sha
    found = [api.revision_exists(name, revision) for revision in ("v1", "1", "production", "PRODUCTION", sha, sha[:10])]
    assert all(found), found
    found = [api.revision_exists(name, revision) for revision in ("nope", "v2", "0" * 40, "0" * 12, "refs/pr/1")]
    assert not any(found), found


def row_26_file_exists(here: Here) -> None:
    name = here.made()
    api = here.api()
    assert api.file_exists(name, "adapter_config.json")
    assert not api.file_exists(name, "nothing.json")
    assert not api.file_exists(name, "adapter_config.json", revision="nope")
    assert not api.file_exists("team/nothing", "adapter_config.json")


def row_35_checksums(here: Here) -> None:
    here.need("verify_repo_checksums")
    name = here.made()
    cache = here.cache()
    here.api().snapshot_download(name, cache_dir=cache)
    found = here.api().verify_repo_checksums(name, cache_dir=cache)
    assert found.checked_count == 3
    assert not found.mismatches
    assert not found.missing_paths


def row_36_safetensors(here: Here) -> None:
    here.need("parse_safetensors_file_metadata")
    name = here.made()
    found = here.api().parse_safetensors_file_metadata(name, "adapter_model.safetensors")
    assert found.parameter_count == {"F32": sum(found.parameter_count.values())}
    assert all(tensor.dtype == "F32" for tensor in found.tensors.values())


def row_37_list_models(here: Here) -> None:
    """More than a page holds."""
    api = here.api("admin")
    names = set()
    for number in range(3):
        name = f"team/listed-{number}{here.fresh()[6:]}"
        api.create_repo(name, private=number == 2)
        api.upload_folder(repo_id=name, folder_path=str(here.adapters / "a"))
        names.add(name)
    assert names <= {model.id for model in api.list_models(author="team", limit=1000)}
    assert names == {model.id for model in api.list_models(author="team", search="listed")}
    assert len(list(api.list_models(author="team", search="listed", limit=2))) == 2
    assert names == {model.id for model in api.list_models(search="listed", filter=["peft", f"base_model:adapter:{BASE}"])}
    assert not list(api.list_models(search="listed", filter=["base_model:adapter:other/base"]))
    assert not list(api.list_models(search="listed", filter="ia3"))
    assert not list(api.list_models(author="nobody"))
    assert len({model.id for model in here.api(None).list_models(search="listed")}) == 2
    options = inspect.signature(HfApi.list_models).parameters
    for none in ({"gated": True}, {"apps": "vllm"}, {"inference_provider": "all"}, {"inference": "warm"}):
        if none.keys() <= options.keys():
            assert not list(api.list_models(search="listed", **none)), none
    if "gated" in options:
        assert names == {model.id for model in api.list_models(search="listed", gated=False)}
    if "num_parameters" in options:
        assert names == {model.id for model in api.list_models(search="listed", num_parameters="min:1,max:1M")}
        assert not list(api.list_models(search="listed", num_parameters="min:6B"))
    full = next(iter(api.list_models(search="listed", full=True)))
    assert [each.rfilename for each in full.siblings] == FILES


def row_38_filesystem(here: Here) -> None:
    name = here.made()
    here.api().create_branch(name, branch="production")
    here.api().upload_folder(repo_id=name, folder_path=str(here.adapters / "b"))
    files = HfFileSystem(endpoint=here.endpoint, token=here.tokens["writer"])
    assert sorted(each["name"].rpartition("/")[2] for each in files.ls(name)) == FILES
    weights = {each: (here.adapters / each / FILES[2]).read_bytes() for each in ("a", "b")}
    assert files.read_bytes(f"{name}/{FILES[2]}") == weights["b"]
    assert files.read_bytes(f"{name}@v1/{FILES[2]}") == weights["a"]
    assert files.read_bytes(f"{name}@production/{FILES[2]}") == weights["a"]


def row_46_no_word_of_xet(here: Here) -> None:
    """A hint of it on the reading side is a hard error of the client."""
    name = here.made()
    for path in ("", "/revision/main", "/tree/main?recursive=true&expand=true", "/refs", "?blobs=true&expand=xetEnabled"):
        status, headers, body = here.asked("GET", f"/api/models/{name}{path}")
        assert status == 200
        assert b"xet" not in body.lower()
        assert not [header for header in headers if "xet" in header]
    for method in ("HEAD", "GET"):
        sha = HfApi(endpoint=here.endpoint, token=here.tokens["writer"]).model_info(name).sha
        _, headers, _ = here.asked(method, f"/{name}/resolve/{sha}/adapter_model.safetensors")
        assert not [header for header in headers if "xet" in header or "xet" in headers[header].lower()]
