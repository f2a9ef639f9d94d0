"""A server of two workers that is killed under eight pushers: what it acknowledged is there once, and nothing is half there."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from registry.connect import connect
from registry.domain.digest import Digest
from tests.api.test_serve import ADAPTERS
from tests.conftest import WriteAdapter, lora_tensors

pytestmark = pytest.mark.slow
PUSHERS, PUSHES, KILLS = 8, 6, 8


def started(store: Path, port: int) -> subprocess.Popen[bytes]:
    """In a group of its own, so that the workers die with it."""
    words = [ADAPTERS, "serve", "--port", str(port), "--workers", "2"]
    environment = {**os.environ, "ADAPTERS_REGISTRY": str(store)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if ask(port, "GET", "/readyz")[0] == 200:
                return process
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Raises OSError where the server is gone before it has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionResetError(str(error)) from error
    finally:
        connection.close()


def until_it_answers(
    port: int, method: str, path: str, body: bytes, stop: Event, broken: list[str], **headers: str
) -> tuple[int, bytes]:
    while not stop.is_set():
        try:
            status, data = ask(port, method, path, body, **headers)
            if status < 500:
                return status, data
        except OSError as error:
            broken.append(type(error).__name__)
        time.sleep(0.05)
    raise AssertionError("stopped")


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
def test_what_was_acknowledged_is_there_once(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    store = tmp_path / "store"
    connect(store).catalog.prepare()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = started(store, port)
    acknowledged: dict[tuple[int, int], str] = {}
    refused: list[object] = []
    broken: list[str] = []
    stop = Event()

    def push(pusher: int) -> None:
        for number in range(PUSHES):
            folder = write_adapter(f"x{pusher}-{number}", lora_tensors(value=pusher + number / 64, width=2000))
            files = []
            for path in folder.iterdir():
                data = path.read_bytes()
                digest = Digest.of(data)
                status, said = until_it_answers(port, "PUT", f"/v1/blobs/{digest}", data, stop, broken)
                if status not in (200, 201):
                    refused.append((status, said))
                files.append({"path": path.name, "digest": digest})
            body = json.dumps({"files": files}).encode()
            key = {"Idempotency-Key": f"{pusher}-{number}", "Content-Type": "application/json"}
            status, said = until_it_answers(port, "POST", f"/v1/adapters/team/x{pusher}/versions", body, stop, broken, **key)
            if status in (200, 201):
                acknowledged[pusher, number] = json.loads(said)["digest"]
            else:
                refused.append((status, said))

    pushers = [Thread(target=push, args=(pusher,)) for pusher in range(PUSHERS)]
    moments = random.Random(6)
    try:
        for each in pushers:
            each.start()
        for turn in range(KILLS):
            time.sleep(moments.uniform(0.05, 0.6))
            if turn % 2:
                for worker in children(process.pid)[:1]:
                    os.kill(worker, signal.SIGKILL)  # the other goes on; the server starts a new one
            else:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process = started(store, port)
        for each in pushers:
            each.join(240)
    finally:
        stop.set()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert refused == []
    assert len(broken) >= KILLS  # they were at it when it died
    assert len(acknowledged) == PUSHERS * PUSHES
    registry = connect(store)
    for pusher in range(PUSHERS):
        versions = registry.catalog.versions(registry.adapter(f"team/x{pusher}"), limit=1000)
        assert [version.number for version in versions] == list(range(PUSHES, 0, -1))  # no number twice, none left out
        assert {version.digest for version in versions} == {acknowledged[pusher, number] for number in range(PUSHES)}
    assert registry.doctor(deep=True).problems == ()
    registry.gc(grace=0)
    assert registry.doctor(deep=True).unreferenced == 0
    assert list(store.glob("work/*")) == []
