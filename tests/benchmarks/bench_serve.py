"""What the server's answers cost: ``python -m tests.benchmarks.bench_serve``.

Look-ups by name and alias over 16 kept-alive connections, against a bare FastAPI "hello" on the same kind of worker in the same
rounds; look-ups that changed nothing (304); a thousand names in one request; look-ups while an alias moves, each checked against
the last acknowledged move (an older answer is stale, and counted). Targets: at least the yardstick's rate, at most twice its p99,
no stale answer. ``--peer PYTHON`` is an interpreter that has MLflow: its registry is asked the same question.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from registry.connect import connect
from tests.benchmarks.catalogs import build, entries
from tests.benchmarks.http_load import Load, load, request
from tests.benchmarks.measure import ADAPTERS, mebibytes, milliseconds, print_machine, print_table, verdict

_LOOKED_UP = 1000


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    process: int

    @property
    def memory(self) -> int:
        """Resident bytes of the process and its children."""
        pids = [self.process, *_children(self.process)]
        return sum(_resident(pid) for pid in pids)

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, object]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = json.dumps(body) if body is not None else None
        more = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, data, {**more, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None


@contextmanager
def serving(*words: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [word.replace("PORT", str(port)) for word in words]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start: {' '.join(command)}") from None
                time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _children(pid: int) -> list[int]:
    try:
        found = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [each for child in found for each in (child, *_children(child))]


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def names(store: Path, adapters: int, versions: int) -> list[str]:
    """Adapters with an alias ``production``, whose manifests are stored: they can be looked up."""
    blobs = connect(store).blobs
    found: list[str] = []
    for entry in entries(adapters, versions):
        if entry.number < 3 and entry.adapter == next(entries(1, 1)).adapter:
            blobs.put(entry.manifest.digest, [entry.manifest.canonical_bytes])  # for the alias that moves
        if "production" in entry.aliases:
            blobs.put(entry.manifest.digest, [entry.manifest.canonical_bytes])
            found.append(str(entry.adapter))
        if len(found) == _LOOKED_UP:
            break
    return found


def moving(server: Server, seconds: float, name: str) -> tuple[int, int, int]:
    """Moves, look-ups meanwhile, and how many of those were older than the last move acknowledged before they were asked."""
    acknowledged = [0]
    stop = threading.Event()
    counts = [0, 0]

    def look() -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        while not stop.is_set():
            least = acknowledged[0]
            connection.request("GET", f"/v1/resolve/{name}?alias=moving")
            answer = json.loads(connection.getresponse().read())
            counts[0] += 1
            if least and _older(answer["version"], least, acknowledged[0]):
                counts[1] += 1

    readers = [threading.Thread(target=look) for _ in range(4)]
    moves = 0
    end = time.monotonic() + seconds
    server.ask("PUT", f"/v1/adapters/{name}/aliases/moving", {"version": 1})
    for reader in readers:
        reader.start()
    while time.monotonic() < end:
        moves += 1
        wanted = moves % 2 + 1
        status, _ = server.ask("PUT", f"/v1/adapters/{name}/aliases/moving", {"version": wanted})
        if status != 200:
            raise SystemExit(f"a move was answered with {status}")
        acknowledged[0] = moves
    stop.set()
    for reader in readers:
        reader.join()
    return moves, counts[0], counts[1]


def _older(version: int, least: int, latest: int) -> bool:
    """Move ``n`` points at ``n % 2 + 1``. An answer made between moves ``least`` and ``latest + 1`` may show any of them; if no
    other move came between, only one version is right."""
    possible = {n % 2 + 1 for n in range(least, latest + 2)}
    return version not in possible


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapters", type=int, default=50_000)
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--peer", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "registry"
        build(store / "catalog.db", adapters=options.adapters, versions=options.versions)
        looked_up = names(store, options.adapters, options.versions)
        print_machine("Server", {"versions": f"{options.adapters * options.versions:,}", "connections": "16"})
        with (
            serving(
                sys.executable, "-m", "uvicorn", "tests.benchmarks.hello:app", "--port", "PORT", "--no-access-log"
            ) as hello,
            serving(
                ADAPTERS, "serve", "--port", "PORT", "--workers", str(options.workers), ADAPTERS_REGISTRY=str(store)
            ) as ours,
            mlflow(options.peer, Path(folder)) as peer,
        ):
            compare(hello, ours, peer, looked_up, options.rounds, options.seconds)
            print(f"memory after this: {mebibytes(ours.memory)} in all processes\n")
            moves, asked, stale = (
                moving(ours, options.seconds, str(next(entries(1, 1)).adapter)) if options.versions > 1 else (0, 0, 0)
            )
            if moves:
                print(f"an alias moved {moves:,} times under {asked:,} look-ups; stale answers: {stale} (target: 0)")


@contextmanager
def mlflow(python: str | None, folder: Path) -> Iterator[Server | None]:
    """MLflow's registry on SQLite with two workers, as its documentation starts it, with a model whose alias is looked up."""
    if python is None:
        yield None
        return
    store = f"sqlite:///{folder / 'mlflow.db'}"
    words = (python, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "2", "--port", "PORT")
    with serving(*words, MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true") as server:
        api = "/api/2.0/mlflow"
        for path, body in (
            ("registered-models/create", {"name": "support"}),
            ("model-versions/create", {"name": "support", "source": "s3://bucket/support"}),
            ("registered-models/alias", {"name": "support", "alias": "production", "version": "1"}),
        ):
            status, answer = server.ask("POST", f"{api}/{path}", body)
            if status != 200:
                raise SystemExit(f"MLflow answered {path} with {status}: {answer}")
        yield server


def compare(
    hello: Server, ours: Server, peer: Server | None, looked_up: list[str], rounds: int, seconds: float
) -> None:
    etags = {}
    start = time.perf_counter()
    for name in looked_up:
        connection = HTTPConnection("127.0.0.1", ours.port)
        connection.request("GET", f"/v1/resolve/{name}?alias=production", headers={"Host": "127.0.0.1"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.read().decode()}")
        answer.read()
        etags[name] = answer.getheader("etag") or ""
        connection.close()
    first = (time.perf_counter() - start) / len(looked_up)
    lookups = [request("GET", f"/v1/resolve/{name}?alias=production") for name in looked_up]
    unchanged = [
        request("GET", f"/v1/resolve/{name}?alias=production", headers={"If-None-Match": etags[name]})
        for name in looked_up
    ]
    batch = json.dumps({"names": [f"{name}:production" for name in looked_up]}).encode()
    batches = [request("POST", "/v1/resolve", headers={"Content-Type": "application/json"}, body=batch)]
    contestants = {
        "hello": (hello, [request("GET", "/hello")], 1),
        "look-up": (ours, lookups, 1),
        "look-up, unchanged (304)": (ours, unchanged, 1),
        f"{len(looked_up):,} names at once": (ours, batches, len(looked_up)),
    }
    if peer is not None:
        path = "/api/2.0/mlflow/registered-models/alias?name=support&alias=production"
        contestants["MLflow"] = (peer, [request("GET", path)], 1)
    found: dict[str, list[Load]] = {name: [] for name in contestants}
    for turn in range(-1, rounds):
        for name, (server, requests, _) in contestants.items():
            one = load(
                server.port,
                requests,
                seconds=seconds if turn >= 0 else 1.0,
                connections=2 if server is ours and len(requests) == 1 else 16,
            )
            if set(one.statuses) - {"200", "304"}:
                raise SystemExit(f"{name}: {one.statuses}")
            if turn >= 0:
                found[name].append(one)
    yard = statistics.median(each.rate for each in found["hello"])
    yard99 = statistics.median(each.p99 for each in found["hello"])
    rows = []
    for name, (_, _, names_each) in contestants.items():
        rate = statistics.median(each.rate for each in found[name])
        p99 = statistics.median(each.p99 for each in found[name])
        p50 = statistics.median(each.p50 for each in found[name])
        judged = (
            "" if not name.startswith("look-up") else f"{verdict(-rate / yard, -1.0)}, p99 {verdict(p99 / yard99, 2.0)}"
        )
        rows.append(
            (
                name,
                f"{rate * names_each:,.0f}/s",
                f"{rate * names_each / yard:.2f}×",
                milliseconds(p50),
                milliseconds(p99),
                judged,
            )
        )
    print(f"each name for the first time, one after the other, with a connection of its own: {milliseconds(first)}\n")
    print_table(["", "rate", "to hello", "p50", "p99", "target ≥ 1×, p99 ≤ 2×"], rows)


if __name__ == "__main__":
    main()
