"""Addresses in answers are those under which clients reach the server."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub.hf_api import RepoStorageInfo

from registry.api.hub_protocol import account, reading
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.in_process import hub, in_files

PUBLIC = "https://adapters.example"


def test_every_address_is_the_public_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAGE", 1)
    here = hub(tmp_path / "store", public_url=f"{PUBLIC}/")
    created = here.ask("POST", "/api/repos/create", json={"organization": "team", "name": "x"}).json()
    assert created["url"] == f"{PUBLIC}/team/x"
    made = here.commit("team/x", in_files(write_one(tmp_path / "a"))).json()
    assert made["commitUrl"] == f"{PUBLIC}/team/x/commit/{made['commitOid']}"
    wanted = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}]}
    actions = here.ask("POST", "/team/x.git/info/lfs/objects/batch", json=wanted).json()["objects"][0]["actions"]
    assert actions["upload"]["href"].startswith(f"{PUBLIC}/_lfs/")
    assert actions["verify"]["href"] == f"{PUBLIC}/team/x.git/info/lfs/objects/verify"
    token = here.ask("GET", "/api/models/team/x/xet-write-token/main")
    assert token.json()["casUrl"].startswith(f"{PUBLIC}/xet/")
    assert token.headers["x-xet-cas-url"] == token.json()["casUrl"]
    page = here.ask("GET", "/api/models/team/x/tree/main?recursive=true")
    assert page.headers["link"].startswith(f"<{PUBLIC}/api/models/team/x/tree/main?recursive=true&cursor=1>")
    pinned = here.ask("GET", "/team/x/resolve/main/sub/a%20b%23.txt")
    assert (pinned.status_code, pinned.headers["location"]) == (
        307,
        f"/team/x/resolve/{made['commitOid']}/sub/a%20b%23.txt",
    )
    assert pinned.headers["cache-control"] == "no-store"
    assert PUBLIC not in json.dumps(here.get("/api/models/team/x"))


def test_a_list_goes_on_where_its_page_ended(tmp_path: Path) -> None:
    """And holds what the caller may see, page by page."""
    here = hub(tmp_path / "store")
    for number in range(5):
        write_one(tmp_path / f"{number}", value=0.1 + number)
        here.registry.push(tmp_path / f"{number}", name=f"team/n{number}" if number != 2 else "other/n2")
    found, path = [], "/api/models?limit=1&search=n"
    while path:
        answer = here.ask("GET", path)
        found += [each["id"] for each in answer.json()]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<http://localhost")
    assert found == ["team/n0", "team/n1", "team/n3", "team/n4"]
    assert here.ask("GET", "/api/models?cursor=b3RoZXIvbjJAMQ").status_code == 400
    assert here.get("/api/models?sort=createdAt", who="admin")[0]["id"] == "team/n4"


def test_what_a_namespace_holds_is_told_to_those_who_may_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client's own class for it reads it."""
    here = hub(tmp_path / "store", anonymous_read=True)
    write_one(tmp_path / "a")
    here.registry.push(tmp_path / "a", name="team/a")
    here.create("team/empty", private=True)
    size = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    organization = "/api/organizations/team/settings/repositories"
    for path in (organization, "/api/settings/repositories"):
        found = [RepoStorageInfo(**row) for row in here.get(path)]
        assert [(each.id, each.type, each.visibility) for each in found] == [
            ("team/a", "model", "public"),
            ("team/empty", "model", "private"),
        ]
        assert [(each.storage, each.storage_percent) for each in found] == [(size, 100), (0, 0)]
        assert found[0].updated_at <= found[1].updated_at
    assert [each["id"] for each in here.get(organization, who="other")] == ["team/a"]
    assert here.ask("GET", organization, who=None).status_code == 401
    assert here.ask("GET", "/api/organizations/nobody/settings/repositories").status_code == 404
    monkeypatch.setattr(account, "_PAGE", 1)
    page = here.ask("GET", organization)
    assert page.headers["link"].startswith(f"<http://localhost{organization}?cursor=1>")


@pytest.mark.parametrize("folder", ["50%25", "100%", "a b#1?x", "ü"])
def test_a_folders_pages_go_on_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A quoted sign in a name is that name's own, on the second page as on the first."""
    monkeypatch.setattr(reading, "_PAGE", 2)
    here = hub(tmp_path / "store")
    here.create("team/x")
    here.committed("team/x", {f"{folder}/f{number}.txt": b"%d" % number for number in range(5)})
    found, path = [], f"/api/models/team/x/tree/main/{quote(folder, safe='')}?recursive=true"
    while path:
        answer = here.ask("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        found += [each["path"] for each in answer.json()]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<http://localhost")
    assert found == [f"{folder}/f{number}.txt" for number in range(5)]
