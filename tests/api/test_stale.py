"""No answer is older than what was acknowledged before it was asked for: over threads, workers and two servers on one store."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from threading import Event, Thread

import pytest

from registry.connect import connect
from tests.api.test_serve import running
from tests.conftest import WriteAdapter, lora_tensors

MOVES, READERS = 60, 6
ALIAS = "/v1/adapters/team/x/aliases/production"
LOOK_UP = "/v1/resolve/team/x?alias=production"


class Client:
    """One connection that is kept: it stays with the worker that took it."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, bytes]:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        answer = self._connection.getresponse()
        return answer.status, answer.getheader("etag") or "", answer.read()

    def close(self) -> None:
        self._connection.close()


@pytest.mark.slow
def test_the_alias_only_moves_on(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """Move n points at version n, through either server; a look-up that was begun after it must show n or more, in the document,
    in a batch, and by not saying that nothing changed."""
    store = tmp_path / "store"
    for number in range(1, MOVES + 1):
        connect(store).push(write_adapter(f"x{number}", lora_tensors(value=number / 64)), name="team/x")
    connect(store).set_alias("team/x", "production", 1)
    acknowledged, done = [1], Event()
    stale: list[object] = []
    counts = [0] * READERS

    def read(number: int, address: str) -> None:
        client, seen = Client(address), 1
        etag, least_of_etag = "", 0
        while not done.is_set():
            least = max(acknowledged[0], seen)
            if number % 3 == 2:
                names = {"names": ["team/x:production"]}
                shown = json.loads(client.ask("POST", "/v1/resolve", names)[2])["items"][0]["found"]["version"]
            else:
                status, etag, data = client.ask("GET", LOOK_UP, **({"If-None-Match": etag} if etag else {}))
                shown = json.loads(data)["version"] if status == 200 else least_of_etag
                least_of_etag = shown
            if shown < least:
                stale.append((number, shown, least))
            seen = max(seen, shown)  # nor does one reader see it go back
            counts[number] += 1
        client.close()

    with running(store, "--workers", "2") as first, running(store) as second:
        readers = [Thread(target=read, args=(number, (first, second)[number % 2])) for number in range(READERS)]
        writers = [Client(first), Client(second)]
        for reader in readers:
            reader.start()
        for number in range(2, MOVES + 1):
            status, _, data = writers[number % 2].ask("PUT", ALIAS, {"version": number}, **{"If-Match": f'"{number - 1}"'})
            assert status == 200, data
            acknowledged[0] = number
        done.set()
        for reader in readers:
            reader.join()
        for writer in writers:
            writer.close()
    assert stale == []
    assert min(counts) > MOVES / 2, counts


@pytest.mark.slow
def test_one_of_many_moves_it_wherever_they_ask(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """Rounds of compare-and-set through three processes: one wins each, and the history is the rounds' winners."""
    store, rounds = tmp_path / "store", 15
    for value in (0.25, 0.5):
        connect(store).push(write_adapter(f"x{value}", lora_tensors(value=value)), name="team/x")
    connect(store).set_alias("team/x", "production", 1)
    with running(store, "--workers", "2") as first, running(store) as second:
        clients = [Client((first, second)[number % 2]) for number in range(6)]
        for turn in range(rounds):
            before, after = turn % 2 + 1, (turn + 1) % 2 + 1
            statuses: list[int] = []

            def move(client: Client, before: int = before, after: int = after, statuses: list[int] = statuses) -> None:
                statuses.append(client.ask("PUT", ALIAS, {"version": after}, **{"If-Match": f'"{before}"'})[0])

            racers = [Thread(target=move, args=(client,)) for client in clients]
            for racer in racers:
                racer.start()
            for racer in racers:
                racer.join()
            assert sorted(statuses) == [200] + [412] * 5
        for client in clients:
            client.close()
    registry = connect(store)
    assert len(registry.alias_history("team/x", "production")) == rounds + 1
    assert registry.doctor(deep=True).problems == ()
