"""A request with a key is carried out once, whenever the server dies; and what is kept of requests is bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from starlette.testclient import TestClient

import registry.api.once as module
from registry.api.app import create_app
from registry.api.callers import Caller
from registry.api.once import Once
from registry.api.settings import Settings
from registry.catalog.journal import FileJournal
from registry.connect import EmbeddedRegistry, embedded
from registry.domain.digest import Digest
from registry.errors import ConflictError, InvalidInputError, UnavailableError
from tests.conftest import WriteAdapter, lora_tensors

A = "/v1/adapters/team/a"


@dataclass
class Scene:
    place: Path
    shelf: EmbeddedRegistry
    files: list[dict[str, str]]

    def client(self) -> TestClient:
        return TestClient(create_app(Settings(self.place)), base_url="http://localhost")

    def send(self, path: str, body: object, key: str = "k") -> tuple[int, Any]:
        answer = self.client().post(path, json=body, headers={"Idempotency-Key": key})
        return answer.status_code, answer.json()

    def killed_at(self, point: str, path: str, body: object) -> None:
        """The request is sent to a server that dies there."""
        child = os.fork()
        if not child:
            with suppress(BaseException):
                deadly(point)
                self.send(path, body)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    @property
    def records(self) -> list[Path]:
        return list((self.place / "server" / "once").glob("*/*"))

    def entries(self) -> list[str]:
        return [entry.action for entry in embedded(self.place).catalog.events(0, limit=1000)]


@pytest.fixture
def scene(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Scene]:
    shelf = embedded(tmp_path / "store", namespace="team", actor="local")
    shelf.push(write_adapter("a"), alias="production", evaluations=["acc=0.5"])
    shelf.push(write_adapter("b", lora_tensors(value=0.25)), name="a", evaluations=["acc=0.75"])
    found = Scene(tmp_path / "store", shelf, [])
    folder, client = write_adapter("new", lora_tensors(value=0.125)), found.client()
    for path in sorted(folder.iterdir()):
        found.files.append({"path": path.name, "digest": Digest.of(path.read_bytes())})
        assert client.put(f"/v1/blobs/{found.files[-1]['digest']}", content=path.read_bytes()).status_code < 300
    yield found
    assert embedded(tmp_path / "store").doctor(deep=True).problems == ()


def dying(*_arguments: object, **_options: object) -> None:
    os._exit(9)


def after(place: Any, name: str) -> None:
    real: Callable[..., Any] = getattr(place, name)

    def doing(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        dying()

    setattr(place, name, doing)


def deadly(point: str) -> None:
    """In a process that has nothing else to do."""
    if point == "carried out, not on record":
        module._write = dying
    elif point == "half on record":
        module._write = lambda _record, descriptor, _path: (os.pwrite(descriptor, b'{"body": "x', 0), dying())
    elif point == "on record, not in the journal":
        after(module, "_write")
    elif point == "in the journal, not in the catalog":
        after(FileJournal, "write")
    else:
        after(Once, "done")


POINTS = ["carried out, not on record", "half on record", "on record, not in the journal",
          "in the journal, not in the catalog", "in the catalog, not answered"]  # fmt: skip

#: What is sent; what is then on record, once; and what the answer has.
REQUESTS: Mapping[str, tuple[str, Callable[[Scene], object], list[str], Mapping[str, object]]] = {
    "scores": (
        f"{A}/versions/1/evaluations",
        lambda _: {"evaluations": [{"metric": "f1", "value": 0.5}]},
        ["evaluate"],
        {"added": 1},
    ),
    "version": (
        f"{A}/versions",
        lambda scene: {"files": scene.files, "aliases": ["canary"], "evaluations": [{"metric": "f1", "value": 0.5}]},
        ["publish", "evaluate", "alias"],
        {"created": True, "version": 3},
    ),
    "promotion": (
        f"{A}/aliases/production/promote",
        lambda _: {"version": 2, "minimum": ["acc>=0.6"]},
        ["alias"],
        {"before": 1, "after": 2, "moved": True},
    ),
    "transaction": (
        "/v1/transactions",
        lambda _: {
            "steps": [
                {"do": "yank", "version": "team/a@1", "reason": "x"},
                {"do": "create_adapter", "adapter": "team/n", "private": False},
            ],
            "commit": True,
        },
        ["yank", "create"],
        {"results": [None, True]},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("what", REQUESTS)
def test_it_is_carried_out_once_whenever_the_server_dies(scene: Scene, what: str, point: str) -> None:
    path, body, recorded, expected = REQUESTS[what]
    before = scene.entries()
    scene.killed_at(point, path, body(scene))
    first, second = (scene.send(path, body(scene)) for _ in range(2))
    assert first[0] == (201 if what == "version" else 200)
    assert first == second
    assert {key: first[1][key] for key in expected} == expected
    assert [action.split(".")[0] for action in scene.entries()[len(before) :]] == recorded


@pytest.mark.parametrize("what", REQUESTS)
def test_the_same_request_again_is_the_same_answer(scene: Scene, what: str) -> None:
    path, body, recorded, _ = REQUESTS[what]
    before = scene.entries()
    answers = [scene.send(path, body(scene)) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(scene.entries()) == len(before) + len(recorded)
    assert len(scene.records) == 1


def test_a_note_that_cannot_be_taken_undoes_what_it_is_about(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    path, body, _, _ = REQUESTS["version"]
    before = scene.entries()

    def full(_descriptor: int, _data: bytes, _at: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        status, said = scene.send(path, body(scene))
    assert (status, said["code"]) == (503, "no-space")
    assert scene.entries() == before
    assert scene.records == []
    assert scene.send(path, body(scene))[1]["created"] is True


def test_what_changes_nothing_and_what_is_refused_keeps_no_answer(scene: Scene) -> None:
    steps = [{"do": "set_tags", "version": "team/a@1", "tags": {}}, {"do": "resolve", "reference": "team/a@1"}]
    assert scene.send("/v1/transactions", {"steps": steps, "commit": True})[0] == 200
    assert scene.send(f"{A}/aliases/production/promote", {"version": 2, "minimum": ["acc>=0.9"]}, "other")[0] == 422
    assert scene.send(f"{A}/versions/9/evaluations", {"evaluations": [{"metric": "f1", "value": 1}]}, "third")[0] == 404
    assert scene.records == []


def test_a_key_of_another_request_or_condition_is_refused(scene: Scene) -> None:
    path, body, _, _ = REQUESTS["promotion"]
    assert scene.send(path, body(scene))[0] == 200
    assert scene.send(path, {"version": 1, "minimum": ["acc>=0.1"]})[1]["code"] == "idempotency-key-reused"
    answer = scene.client().post(path, json=body(scene), headers={"Idempotency-Key": "k", "If-Match": '"1"'})
    assert answer.json()["code"] == "idempotency-key-reused"


@pytest.mark.parametrize("name", ["version", "scores"])
def test_a_condition_that_held_when_it_was_carried_out_is_not_asked_again(scene: Scene, name: str) -> None:
    """The request itself changed what the condition is about, and its answer may have been lost."""
    path, body, _, _ = REQUESTS[name]
    client = scene.client()
    headers = {"If-Match": client.get(path).headers["etag"]}
    first = client.post(path, json=body(scene), headers={**headers, "Idempotency-Key": "k"})
    assert first.status_code < 300, first.text
    assert client.post(path, json=body(scene), headers={**headers, "Idempotency-Key": "k"}).json() == first.json()
    assert client.post(path, json=body(scene), headers={**headers, "Idempotency-Key": "other"}).status_code == 412
    assert client.post(path, json=body(scene), headers=headers).status_code == 412


def test_a_route_that_takes_no_key_asks_its_conditions_whatever_was_done_with_one(scene: Scene) -> None:
    path, body, _, _ = REQUESTS["scores"]
    assert scene.send(path, body(scene))[0] == 200
    headers = {"Idempotency-Key": "k", "If-Match": '"stale"'}
    client = scene.client()
    before = scene.entries()
    assert client.put(f"{A}/versions/1/tags", json={"k": "w"}, headers=headers).status_code == 412
    assert client.request("DELETE", f"{A}/versions/1", json={"reason": "x"}, headers=headers).status_code == 412
    assert scene.entries() == before


# The records alone.


def caller(scene: Scene, name: str = "someone") -> Caller:
    return Caller(scene.shelf.acting(name), name, None, open=True, anonymous_read=False)


def noting(scene: Scene, answer: dict[str, Any] | None = None) -> tuple[list[int], Callable[[Caller], dict[str, Any]]]:
    done: list[int] = []

    def action(given: Caller) -> dict[str, Any]:
        done.append(1)
        given.registry.set_tags("a@1", {"turn": str(time.monotonic_ns())})
        return answer or {"turn": len(done)}

    return done, action


def test_a_long_answer_is_not_kept_and_the_request_is_done_once_all_the_same(scene: Scene, tmp_path: Path) -> None:
    once = Once(tmp_path / "once", lifetime=60)
    done, action = noting(scene, {"long": "x" * (1 << 20)})
    assert once.done(caller(scene), "k", b"", action) == {"long": "x" * (1 << 20)}
    with pytest.raises(ConflictError) as caught:
        once.done(caller(scene), "k", b"", action)
    assert (caught.value.code, done) == ("already-done", [1])
    assert sum(path.stat().st_size for path in (tmp_path / "once").glob("*/*")) < 1000


def test_the_oldest_records_of_an_actor_go_and_nobody_elses(scene: Scene, tmp_path: Path) -> None:
    once = Once(tmp_path / "once", lifetime=60, most=5)
    done, action = noting(scene)
    once.done(caller(scene, "other"), "first", b"", action)
    for number in range(12):
        once.done(caller(scene), f"k{number}", b"", action)
        assert len(list((tmp_path / "once").glob("*/*"))) <= 6
    once.done(caller(scene, "other"), "first", b"", action)
    for number in (11, 10, 9, 8):
        once.done(caller(scene), f"k{number}", b"", action)
    assert len(done) == 13
    once.done(caller(scene), "k0", b"", action)
    assert len(done) == 14


def test_records_end_by_the_clock(scene: Scene, tmp_path: Path) -> None:
    once = Once(tmp_path / "once", lifetime=60)
    done, action = noting(scene)
    once.done(caller(scene), "k", b"", action)
    (record,) = (tmp_path / "once").glob("*/*")
    os.utime(record, (time.time() - 61, time.time() - 61))
    once.done(caller(scene), "k", b"", action)
    assert len(done) == 2
    os.utime(record, (time.time() - 61, time.time() - 61))
    once.sweep()
    assert list((tmp_path / "once").iterdir()) == []


def test_what_has_ended_goes_with_the_next_request_that_changes_something(scene: Scene) -> None:
    """Records, markers of uploads, uploads that nobody went on with, and what the Hub's protocol left; not what is young."""
    scene.send(f"{A}/versions/1/evaluations", {"evaluations": [{"metric": "f1", "value": 0.5}]})
    digest = Digest.of(b"xyz")
    scene.client().patch(f"/v1/uploads/{digest}", content=b"x", headers={"Upload-Offset": "0", "Upload-Length": "3"})
    announced = {"files": [{"path": "adapter_config.json", "size": 1, "sample": ""}]}
    assert scene.client().post("/api/models/team/a/preupload/main", json=announced).status_code == 200
    server = scene.place / "server"
    old = {path for path in server.rglob("*") if path.is_file() and path.name != "key"}
    assert {path.relative_to(server).parts[0] for path in old} == {"once", "uploads", "possessions", "announced"}
    for path in old:
        os.utime(path, (0, 0))
    scene.send(f"{A}/versions/1/evaluations", {"evaluations": [{"metric": "f1", "value": 0.75}]}, "other")
    assert [path for path in old if path.exists()] == []
    assert len(scene.records) == 1


def test_a_record_that_somebody_is_at_work_with_is_not_swept(scene: Scene, tmp_path: Path) -> None:
    once = Once(tmp_path / "once", lifetime=60)
    done, action = noting(scene)
    begun, go_on = Event(), Event()

    def slow(given: Caller) -> dict[str, Any]:
        begun.set()
        go_on.wait(30)
        return action(given)

    threads = [Thread(target=once.done, args=(caller(scene), "k", b"", each)) for each in (slow, action)]
    threads[0].start()
    begun.wait(30)
    threads[1].start()
    (record,) = (tmp_path / "once").glob("*/*")
    os.utime(record, (time.time() - 61, time.time() - 61))
    once.sweep()
    assert record.exists()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert done == [1]


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb"])
def test_a_key_is_short_and_printable(scene: Scene, tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidInputError):
        Once(tmp_path / "once", lifetime=60).done(caller(scene), key, b"", noting(scene)[1])


@pytest.mark.parametrize(
    "written", [b"", b"{}", b"[]", b'{"body": "x", "answer": {}}', b'{"body": "x", "entry": 3, "answer": {}}']
)
def test_a_record_that_cannot_be_read_is_none(scene: Scene, tmp_path: Path, written: bytes) -> None:
    once = Once(tmp_path / "once", lifetime=60)
    done, action = noting(scene)
    once.done(caller(scene), "k", b"", action)
    (record,) = (tmp_path / "once").glob("*/*")
    record.write_bytes(written)
    once.done(caller(scene), "k", b"", action)
    assert len(done) == 2


def test_records_that_cannot_be_made_are_said(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "once").write_text("a file")
    with pytest.raises(UnavailableError):
        Once(tmp_path / "once", lifetime=60).done(caller(scene), "k", b"", noting(scene)[1])
