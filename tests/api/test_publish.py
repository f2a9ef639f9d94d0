"""Versions from blobs that were sent: many at once, once only, and never of what one may not have.

Each refusal also shows that the catalog is what it was and that nothing is left lying about.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.api.app import create_app
from registry.api.settings import Settings
from registry.connect import Registry, connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.errors import DefectiveAdapterError
from tests.conftest import WriteAdapter, floats, lora_tensors

VERSIONS = "/v1/adapters/team/c/versions"


@dataclass
class Scene:
    shelf: Registry
    place: Path
    client: TestClient
    tokens: dict[str, str]

    def post(self, who: str, path: str, body: object, key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} | ({"Idempotency-Key": key} if key else {})
        answer = self.client.post(path, json=body, headers=headers)
        return answer.status_code, answer.json()

    def send(self, who: str, folder: Path) -> list[dict[str, str]]:
        """All files of a directory; as what ``files`` says of them."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        for path in folder.iterdir():
            data = path.read_bytes()
            assert self.client.put(f"/v1/blobs/{Digest.of(data)}", content=data, headers=headers).status_code < 300
        return listed(folder)

    def state(self) -> tuple[bytes, list[str]]:
        """What a refusal must not change: everything on record, and what lies about."""
        leftovers = [path.name for path in self.place.glob("*/receiving-*")]
        return self.shelf.catalog.generation(), leftovers


def listed(folder: Path) -> list[dict[str, str]]:
    return [{"path": path.name, "digest": Digest.of(path.read_bytes())} for path in sorted(folder.iterdir())]


@pytest.fixture
def scene(tmp_path: Path, write_adapter: WriteAdapter) -> Any:
    shelf = connect(tmp_path / "registry", namespace="team")
    shelf.push(write_adapter("secret", lora_tensors(value=0.125)), name="hidden/s")
    tokens: dict[str, str] = {}
    both = [Action.READ, Action.PUSH]
    with shelf.catalog.writing() as writer:
        writer.set_private(shelf.adapter("hidden/s"), private=True)
        for name, actions in {"pusher": both, "other": both, "maintainer": [*both, Action.TAG]}.items():
            tokens[name], token = new_token(name, actions, [NamespacePattern("team/*")], expires_at=None)
            writer.add_token(token)
    app = create_app(Settings(tmp_path / "registry", pushes_per_minute=10_000))
    yield Scene(shelf, tmp_path / "registry", TestClient(app, base_url="http://localhost"), tokens)
    assert shelf.doctor(deep=True).problems == ()


def test_of_many_who_send_the_same_content_one_makes_the_version(scene: Scene, write_adapter: WriteAdapter) -> None:
    folder, gate = write_adapter("c"), Barrier(8)

    def publish(turn: int) -> tuple[int, Any]:
        gate.wait()
        who = "pusher" if turn % 2 else "other"
        return scene.post(who, VERSIONS, {"files": scene.send(who, folder)})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(publish, range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert {(answer["reference"], answer["created"]) for _, answer in answers} == {
        ("team/c@1", True),
        ("team/c@1", False),
    }
    assert [version.number for version in scene.shelf.catalog.versions(scene.shelf.adapter("c"), limit=10)] == [1]


def test_of_what_one_may_not_read_no_version_is_made(scene: Scene, tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """The same answer as for bytes nobody has, until one sends them."""
    before = scene.state()
    files = listed(tmp_path / "secret")
    status, refused = scene.post("pusher", VERSIONS, {"files": files})
    assert (status, refused["code"]) == (404, "not-uploaded")
    unknown = [{**file, "digest": Digest.of(file["path"].encode())} for file in files]
    assert scene.post("pusher", VERSIONS, {"files": unknown})[1].keys() == refused.keys()
    scene.send("other", tmp_path / "secret")  # that somebody else has them changes nothing
    assert scene.post("pusher", VERSIONS, {"files": files})[0] == 404
    assert scene.state() == before
    assert scene.post("pusher", VERSIONS, {"files": scene.send("pusher", tmp_path / "secret")})[0] == 201


def test_a_parent_that_one_may_not_read_is_not_there(scene: Scene, write_adapter: WriteAdapter) -> None:
    files, before = scene.send("pusher", write_adapter("c")), scene.state()
    hidden = scene.post("pusher", VERSIONS, {"files": files, "parents": ["hidden/s@1*0.5"]})
    nothing = scene.post("pusher", VERSIONS, {"files": files, "parents": ["hidden/none@1*0.5"]})
    assert (hidden[0], hidden[1]["code"]) == (nothing[0], nothing[1]["code"]) == (404, "unknown-adapter")
    assert hidden[1]["detail"].replace("hidden/s", "N") == nothing[1]["detail"].replace("hidden/none", "N")
    assert scene.state() == before


def test_an_alias_takes_the_right_to_move_it(scene: Scene, write_adapter: WriteAdapter) -> None:
    body: dict[str, Any] = {"files": scene.send("pusher", write_adapter("c")), "aliases": ["production"]}
    before = scene.state()
    assert scene.post("pusher", VERSIONS, body)[1]["code"] == "forbidden"
    assert scene.state() == before
    scene.send("maintainer", scene.place.parent / "c")
    wanted = {**body, "tags": {"k": "v"}, "evaluations": [{"metric": "acc", "value": 0.5}]}
    status, made = scene.post("maintainer", VERSIONS, wanted)
    assert (status, made["aliases"], made["tags"], made["score"]["value"]) == (201, ["production"], {"k": "v"}, 0.5)
    assert scene.shelf.aliases("c") == {"production": 1}
    shown = scene.client.get(f"{VERSIONS}/1", headers={"Authorization": f"Bearer {scene.tokens['maintainer']}"}).json()
    assert (shown["aliases"], shown["tags"], shown["score"]["value"]) == (made["aliases"], made["tags"], 0.5)


def test_a_defect_is_found_as_in_a_push(scene: Scene, write_adapter: WriteAdapter) -> None:
    """The findings are those of a push from a directory; what is allowed is on record with the version."""
    tensors = lora_tensors()
    name = next(iter(tensors))
    kind, shape, _ = tensors[name]
    folder = write_adapter("c", {**tensors, name: (kind, shape, floats(float("nan"), count=6))})
    files, before = scene.send("pusher", folder), scene.state()
    status, refused = scene.post("pusher", VERSIONS, {"files": files})
    assert (status, scene.state()) == (400, before)
    rules = [finding["rule"] for finding in refused["findings"] if finding["severity"] == "error"]
    with pytest.raises(DefectiveAdapterError) as pushed:
        scene.shelf.push(folder)
    assert rules == [finding.rule for finding in pushed.value.findings if finding.severity is Severity.ERROR] != []
    status, made = scene.post("pusher", VERSIONS, {"files": files, "allow": rules})
    assert (status, {finding["rule"] for finding in made["findings"]} >= set(rules)) == (201, True)


def test_a_request_with_a_key_is_carried_out_once(scene: Scene, write_adapter: WriteAdapter) -> None:
    files = scene.send("pusher", write_adapter("c"))
    body = {"files": files, "tags": {"k": "v"}}
    made = scene.post("pusher", VERSIONS, body, "key-1")
    after = scene.state()
    assert made[0] == 201
    assert scene.post("pusher", VERSIONS, body, "key-1") == made  # 201 and created, although it is there by now
    assert scene.post("pusher", VERSIONS, {"files": files}, "key-1")[1]["code"] == "idempotency-key-reused"
    assert scene.post("pusher", "/v1/adapters/team/d/versions", body, "key-1")[0] == 409
    assert scene.state() == after
    scene.send("other", scene.place.parent / "c")
    assert scene.post("other", VERSIONS, body, "key-1")[0] == 200  # keys are each caller's own


def test_a_key_at_the_same_time_is_carried_out_once(scene: Scene, write_adapter: WriteAdapter) -> None:
    files, gate = scene.send("pusher", write_adapter("c")), Barrier(8)
    assert scene.post("pusher", VERSIONS, {"files": files})[0] == 201

    def add(_turn: int) -> tuple[int, Any]:
        gate.wait()
        return scene.post(
            "pusher", f"{VERSIONS}/1/evaluations", {"evaluations": [{"metric": "acc", "value": 0.5}]}, "k"
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, range(8))) == [(200, {"added": 1})] * 8
    assert [(score.metric, score.value) for score in scene.shelf.evaluations("c@1")] == [("acc", 0.5)]


def test_a_refusal_is_not_kept_with_its_key(scene: Scene, write_adapter: WriteAdapter) -> None:
    folder = write_adapter("c")
    body = {"files": listed(folder)}
    assert scene.post("pusher", VERSIONS, body, "key")[0] == 404
    wrong = {"files": [{**file, "path": f"../{file['path']}"} for file in scene.send("pusher", folder)]}
    before = scene.state()
    assert scene.post("pusher", VERSIONS, wrong, "key")[0] == 400
    assert scene.state() == before
    assert scene.post("pusher", VERSIONS, body, "key")[0] == 201


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"files": []}, 400),
        ({"tags": {"k" * 500: "v"}}, 400),
        ({"aliases": ["no/alias"]}, 400),
        ({"parents": ["hidden/s*0.5"]}, 404),
        ({"parents": ["hidden/s*nan"]}, 400),
        ({"evaluations": [{"metric": "", "value": 1}]}, 400),
        ({"evaluations": [{"metric": "acc", "value": 1, "stderr": -1}]}, 400),
        ({"parents": ["not a reference"]}, 400),
        ({"allow": [1]}, 400),
    ],
)
def test_what_makes_no_sense_is_refused(
    scene: Scene, write_adapter: WriteAdapter, change: dict[str, Any], status: int
) -> None:
    files, before = scene.send("maintainer", write_adapter("c")), scene.state()
    assert scene.post("maintainer", VERSIONS, {"files": files, **change})[0] == status
    assert scene.state() == before


def test_one_path_twice_is_refused(scene: Scene, write_adapter: WriteAdapter) -> None:
    files, before = scene.send("pusher", write_adapter("c")), scene.state()
    assert scene.post("pusher", VERSIONS, {"files": [*files, files[0]]})[1]["code"] == "duplicate-path"
    assert scene.state() == before


RESULTS = json.dumps({"results": {"boolq": {"acc,none": 0.75, "acc_stderr,none": 0.01}}}).encode()


def test_results_files_are_read_here_and_kept(scene: Scene, write_adapter: WriteAdapter) -> None:
    digest = Digest.of(RESULTS)
    sent = scene.client.put(
        f"/v1/blobs/{digest}", content=RESULTS, headers={"Authorization": f"Bearer {scene.tokens['pusher']}"}
    )
    assert sent.status_code == 201
    files, given = scene.send("pusher", write_adapter("c")), [{"digest": digest, "name": "boolq.json"}]
    assert scene.post("pusher", VERSIONS, {"files": files, "results": given})[0] == 201
    (kept,) = scene.shelf.evaluations("c@1")
    assert (kept.task, kept.metric, kept.value, kept.stderr, kept.source) == ("boolq", "acc", 0.75, 0.01, "boolq.json")
    assert digest in set(scene.shelf.catalog.references())
    assert scene.post("pusher", f"{VERSIONS}/1/evaluations", {"results": given}) == (200, {"added": 0})
    other = [{"digest": digest}]  # as the other may read the version, so it may read its results
    assert scene.post("other", f"{VERSIONS}/1/evaluations", {"results": other})[0] == 200


@pytest.mark.parametrize(
    ("content", "sent", "code"),
    [(RESULTS, False, "not-uploaded"), (b"{}", True, "no-score"), (b"\xff", True, "no-score")],
)
def test_results_that_are_none_make_no_version(
    scene: Scene, write_adapter: WriteAdapter, content: bytes, sent: bool, code: str
) -> None:
    files, digest = scene.send("pusher", write_adapter("c")), Digest.of(content)
    if sent:
        headers = {"Authorization": f"Bearer {scene.tokens['pusher']}"}
        assert scene.client.put(f"/v1/blobs/{digest}", content=content, headers=headers).status_code == 201
    before = scene.state()
    assert scene.post("pusher", VERSIONS, {"files": files, "results": [{"digest": digest}]})[1]["code"] == code
    assert scene.post("pusher", f"{VERSIONS}/1/evaluations", {})[1]["code"] == "no-score"
    assert scene.state() == before
