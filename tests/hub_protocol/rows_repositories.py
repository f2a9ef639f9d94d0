"""Rows about accounts, repositories, branches and tags."""

from __future__ import annotations

import huggingface_hub
from huggingface_hub import HfApi

from tests.hub_protocol.probe import Failing, Here


def row_01_whoami(here: Here) -> None:
    found = here.api().whoami()
    assert found["name"] == "team"
    assert isinstance(found["orgs"], list)
    assert found["auth"]["accessToken"]["role"] == "write"
    assert here.api("reader").whoami()["auth"]["accessToken"]["role"] == "read"
    with Failing("HfHubHTTPError", "HTTPError", status=401):
        HfApi(endpoint=here.endpoint, token="hf_nobodys").whoami()


def row_01_login(here: Here) -> None:
    token = here.tokens["writer"]
    huggingface_hub.login(token, add_to_git_credential=False)
    assert huggingface_hub.get_token() == token


def row_02_create_repo(here: Here) -> None:
    name = here.fresh()
    made = here.api().create_repo(name, private=True)
    assert made.repo_id == name
    assert str(made) == f"{here.endpoint}/{name}"


def row_03_create_again(here: Here) -> None:
    name = here.fresh()
    first = here.api().create_repo(name)
    assert here.api().create_repo(name, exist_ok=True) == first
    with Failing("HfHubHTTPError", "HTTPError", status=409):
        here.api().create_repo(name)


def row_04_create_without_namespace(here: Here) -> None:
    assert here.api().create_repo(f"solo{here.fresh()[6:]}").repo_id.startswith("team/solo")


def row_04_create_where_one_may_not(here: Here) -> None:
    for name in ("other/mine", "models/x", "v1/x"):
        with Failing("HfHubHTTPError", "HTTPError") as failure:
            here.api("other" if name != "other/mine" else "writer").create_repo(name)
        assert failure.response.status_code in (400, 403)
    with Failing("HfHubHTTPError", "HTTPError", status=400):
        here.api("admin").create_repo("models/x")
    assert here.api("admin").repo_exists("team/none") is False


def row_04_create_like_a_version(here: Here) -> None:
    """Neither made nor taken for one that is there."""
    name, api = here.fresh(), here.api()
    api.create_repo(f"{name}.v3")
    with Failing("HfHubHTTPError", "HTTPError") as failure:
        api.create_repo(name, exist_ok=True)
    if here.version > (0, 20):  # which looks whether it is there, and says that it is not
        assert "which is an adapter" in failure.response.headers["x-error-message"]
    made = here.made()
    api.create_branch(made, branch="production")
    with Failing("HfHubHTTPError", "HTTPError"):
        api.create_repo(f"{made}.production")
    api.create_repo(f"{made}.production", exist_ok=True)
    with Failing("HfHubHTTPError", "HTTPError", status=403) as failure:
        api.upload_folder(repo_id=f"{made}.production", folder_path=str(here.adapters / "b"))
    assert "a version does not change" in failure.text
    assert api.model_info(f"{made}.production").sha == api.model_info(made, revision="v1").sha


def row_05_repo_exists(here: Here) -> None:
    name, private = here.made(), here.made(private=True)
    assert here.api().repo_exists(name)
    assert here.api(None).repo_exists(name)
    assert here.api().repo_exists(private)
    for api in (here.api(None), here.api("other")):
        assert not api.repo_exists(private)
        assert not api.repo_exists(f"{private}.v1")
    assert not here.api().repo_exists("team/nothing")


def row_18_tags(here: Here) -> None:
    name = here.made()
    api = here.api()
    head = api.model_info(name).sha
    api.create_tag(name, tag="released")
    api.create_tag(name, tag="released", exist_ok=True)
    with Failing("HfHubHTTPError", "HTTPError", status=409):
        api.create_tag(name, tag="released")
    with Failing("HfHubHTTPError", "HTTPError", status=409):
        api.create_tag(name, tag="v1")
    api.create_tag(name, tag="v1", exist_ok=True)
    with Failing("HfHubHTTPError", "HTTPError", status=403):
        api.create_tag(name, tag="v2")
    with Failing("RevisionNotFoundError"):
        api.create_tag(name, tag="elsewhere", revision="nowhere")
    assert api.model_info(name, revision="released").sha == head
    api.upload_folder(repo_id=name, folder_path=str(here.adapters / "b"))
    assert api.model_info(name, revision="released").sha == head
    assert api.model_info(name).sha != head
    with Failing("HfHubHTTPError", "HTTPError", status=403):
        api.delete_tag(name, tag="v1")
    api.delete_tag(name, tag="released")
    with Failing("RevisionNotFoundError"):
        api.delete_tag(name, tag="released")


def row_19_branches(here: Here) -> None:
    """Are aliases."""
    name = here.made()
    api = here.api()
    api.upload_folder(repo_id=name, folder_path=str(here.adapters / "b"))
    api.create_branch(name, branch="production", revision="v1")
    api.create_branch(name, branch="production", exist_ok=True)
    with Failing("HfHubHTTPError", "HTTPError", status=409):
        api.create_branch(name, branch="production")
    assert api.model_info(name, revision="production").sha == api.model_info(name, revision="v1").sha
    with Failing("HfHubHTTPError", "HTTPError", status=403):
        api.delete_branch(name, branch="main")
    with Failing("HfHubHTTPError", "HTTPError") as failure:
        here.api("reader").create_branch(name, branch="mine")
    assert failure.response.status_code == 403
    api.delete_branch(name, branch="production")
    with Failing("RevisionNotFoundError"):
        api.model_info(name, revision="production")


def row_20_refs(here: Here) -> None:
    name = here.made()
    api = here.api()
    api.create_branch(name, branch="production")
    refs = api.list_repo_refs(name)
    assert {branch.name for branch in refs.branches} == {"main", "production"}
    assert [(tag.name, tag.ref) for tag in refs.tags] == [("v1", "refs/tags/v1")]
    assert refs.converts == []
    if here.version >= (0, 21):
        assert api.list_repo_refs(name, include_pull_requests=True).pull_requests == []


def row_21_commits(here: Here) -> None:
    name = here.made()
    api = here.api()
    api.upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=b"# other\n", commit_message="another card")
    commits = api.list_repo_commits(name)
    assert commits[0].title == "another card"
    assert commits[0].commit_id == api.model_info(name).sha
    assert len({commit.commit_id for commit in commits}) == len(commits) == 3
    assert "writer" in commits[0].authors[0]
    assert commits[0].created_at >= commits[-1].created_at


def row_39_settings(here: Here) -> None:
    name = here.made()
    api = here.api()
    if hasattr(HfApi, "auth_check"):
        api.auth_check(name)
    if hasattr(HfApi, "update_repo_settings") and here.version >= (0, 26):
        api.update_repo_settings(name, private=True)
    else:
        api.update_repo_visibility(name, private=True)
    assert not here.api(None).repo_exists(name)
    moved = f"{name}-moved"
    api.move_repo(name, moved)
    assert api.repo_exists(moved)
    assert not api.repo_exists(name)
    assert sorted(api.list_repo_files(moved)) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    api.delete_repo(moved)
    assert not api.repo_exists(moved)
    api.delete_repo(moved, missing_ok=True)
    with Failing("RepositoryNotFoundError"):
        api.delete_repo(moved)


def row_40_denied(here: Here) -> None:
    name = here.made(private=True)
    with Failing("HfHubHTTPError", "HTTPError") as failure:
        here.api("reader").upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=b"x")
    assert failure.response.status_code == 403
    with Failing("RepositoryNotFoundError"):
        here.api("other").model_info(name)
    with Failing("RepositoryNotFoundError"):
        here.api("other").upload_file(repo_id=name, path_in_repo="README.md", path_or_fileobj=b"x")
    asked = here.requests()[-1]
    assert "/preupload/" in asked["path"]


def row_47_foreign(here: Here) -> None:
    """No code, so that clients go on with what they have."""
    for path in ("/api/models/meta-llama/x", "/api/models/gpt2", "/meta-llama/x/resolve/main/config.json", "/api/agent-harnesses"):
        status, headers, _ = here.asked("GET", path, token=None)
        assert (status, headers.get("x-error-code")) == (404, None), path
    status, headers, _ = here.asked("GET", "/api/models/team/none")
    assert (status, headers.get("x-error-code")) == (404, "RepoNotFound")
