"""A server as an operator starts it: what it refuses to do, and that its workers never contradict each other."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from registry.api.connections import Connection
from registry.api.serve import configured
from registry.api.settings import Settings
from registry.catalog import schema
from registry.catalog.engine import sqlite_engine, writing
from registry.connect import connect
from tests.conftest import WriteAdapter, lora_tensors

ADAPTERS = str(Path(sys.executable).with_name("adapters"))


def adapters(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ADAPTERS_REGISTRY": str(store)}
    return subprocess.run([ADAPTERS, *words], env=environment, capture_output=True, text=True, timeout=60)


@contextmanager
def running(store: Path, *words: str, said: list[str] | None = None) -> Iterator[str]:
    """Its address; ``said`` gets what it wrote to stderr meanwhile."""
    environment = {**os.environ, "ADAPTERS_REGISTRY": str(store)}
    process = subprocess.Popen([ADAPTERS, "serve", "--port", "0", *words], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    rest: list[str] = [] if said is None else said
    drain = threading.Thread(target=lambda: rest.extend(process.stderr or ()))
    drain.start()
    try:
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(40) in (0, -15)
        drain.join()
        process.stderr.close()


def get(address: str, path: str, token: str | None = None) -> tuple[int, dict[str, object]]:
    request = Request(address + path, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.slow
def test_init_prints_the_token_alone_and_once(tmp_path: Path) -> None:
    made = adapters(tmp_path / "store", "serve", "--init")
    assert made.returncode == 0
    assert re.fullmatch(r"adr_[a-z0-9]{10}_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}\n", made.stdout)
    again = adapters(tmp_path / "store", "serve", "--init")
    assert (again.returncode, again.stdout) == (5, "")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert made.stdout.strip().encode() not in everything


@pytest.mark.slow
def test_beyond_this_machine_only_with_tokens(tmp_path: Path) -> None:
    refused = adapters(tmp_path / "store", "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 8
    assert "adapters serve --init" in refused.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with connect(store).catalog.writing():
        pass
    with writing(sqlite_engine(store / "catalog.db")) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    refused = adapters(store, "serve", "--port", "0")
    assert refused.returncode == 8
    assert f"up to {schema.HEAD}" in refused.stderr


@pytest.mark.slow
def test_an_older_schema_is_migrated_by_command_and_not_by_the_way(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    store = tmp_path / "store"
    connect(store).push(write_adapter("x"), name="team/x")
    with writing(sqlite_engine(store / "catalog.db")) as connection:
        schema.migrate(connection, "-1", lambda _digest: [], down=True)
        older = schema.current(connection)
    refused = adapters(store, "serve", "--port", "0")
    assert refused.returncode == 8
    assert "adapters migrate" in refused.stderr
    assert connect(store).catalog.revision() == older
    done = adapters(store, "migrate", "--json")
    assert json.loads(done.stdout) == {"before": older, "after": schema.HEAD}
    assert adapters(store, "migrate").stdout.endswith("nothing to do\n")
    with running(store) as address:
        assert get(address, "/v1/adapters/team/x")[0] == 200


@pytest.mark.slow
def test_who_may_read_is_the_operators_choice(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    store = tmp_path / "store"
    connect(store).push(write_adapter("x"), name="team/x")
    connect(store).push(write_adapter("y", lora_tensors(value=0.25)), name="team/y")
    with connect(store).catalog.writing() as writer:
        writer.set_private(connect(store).adapter("team/y"), private=True)
    with running(store) as address:  # no tokens yet: this machine may do everything
        assert get(address, "/v1/adapters/team/y")[0] == 200
    token = adapters(store, "serve", "--init").stdout.strip()
    with running(store) as address:
        assert get(address, "/v1/adapters/team/x")[0] == 401
        assert get(address, "/v1/adapters/team/x", token)[0] == 200
    with running(store, "--anonymous-read") as address:
        assert get(address, "/v1/adapters/team/x")[0] == 200
        assert get(address, "/v1/adapters/team/y") == get(address, "/v1/adapters/team/y", "hf_somebodys")
        assert get(address, "/v1/adapters/team/y")[0] == 404
        assert [item["adapter"] for item in get(address, "/v1/adapters")[1]["items"]] == ["team/x"]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_move_that_was_acknowledged_is_seen_by_every_later_request_on_every_worker(
    tmp_path: Path, write_adapter: WriteAdapter
) -> None:
    """Each look-up is a connection of its own, so that it meets either worker. Moves alternate between two servers on one store."""
    store = tmp_path / "store"
    for value in (0.25, 0.5):
        connect(store).push(write_adapter(f"x{value}", lora_tensors(value=value)), name="team/x", alias="production")
    stale = looked = 0
    with running(store, "--workers", "2") as first, running(store) as second:
        for move in range(40):
            version = move % 2 + 1
            request = Request(
                f"{(first, second)[move % 4 > 1]}/v1/adapters/team/x/aliases/production",
                data=json.dumps({"version": version}).encode(),
                headers={"Content-Type": "application/json"},
                method="PUT",
            )
            with urlopen(request, timeout=30):
                pass
            for address in (first, first, first, second):
                looked += 1
                stale += get(address, "/v1/resolve/team/x?alias=production")[1]["version"] != version
    assert (looked, stale) == (160, 0)


@pytest.mark.slow
def test_counters_are_of_all_workers(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """Each request is a connection of its own, so both workers get some, and whichever is asked knows of all."""
    store = tmp_path / "store"
    connect(store).push(write_adapter("x"), name="team/x")
    wanted = 'adapters_requests_total{area="/healthz",method="GET",status="200"}'
    with running(store, "--workers", "2") as address:
        for count in range(1, 31):
            assert get(address, "/healthz")[0] == 200
            with urlopen(f"{address}/metrics", timeout=30) as answer:
                (line,) = [line for line in answer.read().decode().splitlines() if line.startswith(wanted)]
            assert float(line.split()[-1]) == count


def test_a_worker_answers_its_supervisor_before_it_imports_the_server(tmp_path: Path) -> None:
    """uvicorn kills a worker that does not answer, and a worker does so once it has read its configuration: on a busy machine
    workers that import the server for that are killed and made again, for ever. What is left to import is uvicorn, for which
    a starved worker has more than uvicorn's five seconds."""
    config = configured(Settings(tmp_path / "store", workers=2))
    read = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", read], input=ForkingPickler.dumps(config), timeout=60)
    loaded = {name.partition(".")[0] for name in found.decode().split()}
    assert "uvicorn" in loaded
    assert not loaded & {"registry", "cli", "fastapi", "starlette", "sqlalchemy"}
    assert config.timeout_worker_healthcheck >= 60
    assert config.http == f"{Connection.__module__}:{Connection.__name__}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
def test_a_worker_that_is_lost_is_said(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    connect(tmp_path / "store").push(write_adapter("x"), name="team/x")
    said: list[str] = []
    with running(tmp_path / "store", "--workers", "2", said=said) as address:
        eventually(lambda: get(address, "/healthz")[0] == 200)
        worker = next(process for process in descendants(os.getpid()) if "spawn_main" in command_line(process))
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: bool(said))
    assert said[:1] == [f"worker {worker} is gone (exit code -9), another takes its place\n"]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while True:
        with suppress(OSError):  # nobody answers yet
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(process: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            yield child
            yield from descendants(child)


def command_line(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.mark.slow
def test_requests_are_logged_by_every_worker(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    connect(tmp_path / "store").push(write_adapter("x"), name="team/x")
    for workers in ("1", "2"):
        said: list[str] = []
        with running(tmp_path / "store", "--log-requests", "--workers", workers, said=said) as address:
            for _ in range(5):
                get(address, "/healthz")
        assert sum('"path": "/healthz"' in line for line in said) == 5, workers


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_of_long",
    [
        "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        "POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["a stream of events", "half a body"],
)
def test_what_has_no_end_does_not_keep_a_server_from_ending(
    tmp_path: Path, write_adapter: WriteAdapter, request_of_long: str
) -> None:
    connect(tmp_path / "store").push(write_adapter("x"), name="team/x")
    with ExitStack() as stack:
        with running(tmp_path / "store") as address:
            where = ("127.0.0.1", int(address.rpartition(":")[2]))
            stack.enter_context(socket.create_connection(where)).sendall(request_of_long.encode())
            get(address, "/healthz")  # so the other has arrived
            begun = time.monotonic()
        assert time.monotonic() - begun < 20  # uvicorn would wait for 30
