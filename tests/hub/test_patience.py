"""A hub that counts what it is asked, or is unwell for a moment: it is waited for, and asked again."""

from __future__ import annotations

import logging
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Lock

import pytest
from huggingface_hub.utils import parse_ratelimit_headers

from registry.connect import Registry
from registry.domain.names import AdapterName
from registry.errors import ConflictError, UnavailableError
from registry.hub.repositories import HuggingFaceHub
from registry.operations.hub_address import HubAddress
from registry.operations.hub_fetch import fetch_from_hub
from registry.operations.hub_import import Imported, Wanted, import_many
from tests.conftest import WriteAdapter, safetensors_bytes
from tests.hub.conftest import Command
from tests.hub.peer_server import PeerServer, Refusal
from tests.hub.test_import import adapter, files_below

# huggingface_hub's own uploads by Git-LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ADDRESS = HubAddress("org/lora")
#: As the Hub says it, https://huggingface.co/docs/hub/rate-limits, and as others do.
SAYS: dict[str, Callable[[int], Mapping[str, str]]] = {
    "RateLimit": lambda seconds: {"RateLimit": f'"api";r=0;t={seconds}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
    "Retry-After": lambda seconds: {"Retry-After": str(seconds)},
}


def once(status: int, pattern: str, headers: Mapping[str, str] | None = None) -> Callable[[str, str], Refusal | None]:
    """Each path that fits is refused the first time."""
    refused: set[tuple[str, str]] = set()

    def refuse(method: str, path: str) -> Refusal | None:
        if not re.search(pattern, path) or (method, path) in refused:
            return None
        refused.add((method, path))
        return status, b'{"error": "not now"}', headers or {}

    return refuse


class Window:
    """So many questions, and then none for some seconds, as where the Hub's window is used up: every refusal says how long."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._ends: float | None = None
        self._lock = Lock()
        self.refused = 0

    def __call__(self, _method: str, path: str) -> Refusal | None:
        if not path.startswith("/api/"):
            return None
        with self._lock:
            self._most -= 1
            if self._most >= 0:
                return None
            self._ends = self._ends or time.monotonic() + self._seconds
            left = self._ends - time.monotonic()
            if left <= 0:
                return None
            self.refused += 1
        headers = SAYS["RateLimit"](int(left) + 1)
        limit = parse_ratelimit_headers(headers)
        assert limit is not None
        assert limit.reset_in_seconds >= left
        return 429, b"{}", headers


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_pull_asks_again_what_was_not_answered_once(
    server: PeerServer, client: HuggingFaceHub, tmp_path: Path, status: int
) -> None:
    server.have("org/lora", adapter())
    server.refuse = once(status, r"^/api/models/org/lora$|paths-info|/resolve/.*config")
    paused: list[float] = []
    fetch_from_hub(ADDRESS, tmp_path / "into", hub=client.pausing(paused.append))
    assert files_below(tmp_path / "into") == set(adapter())
    assert len(paused) == (2 if status == 429 else 3)  # of a download the library waits for the window itself
    assert all(1 <= each <= 2 for each in paused)


@pytest.mark.parametrize("who", SAYS)
def test_what_the_hub_says_to_wait_is_waited(
    server: PeerServer, client: HuggingFaceHub, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    repository = server.have("org/lora", adapter())
    server.refuse = once(429, "^/api/models/org/lora$", SAYS[who](2))
    start = time.monotonic()
    with caplog.at_level(logging.WARNING, "adapters.hub"):
        assert client.look_up("org/lora").commit == repository.head
    assert 2 <= time.monotonic() - start < 10
    assert [record.getMessage() for record in caplog.records] == ["the Hub asks to wait 2 s; going on then"]


@pytest.mark.parametrize("who", SAYS)
def test_longer_than_the_hubs_window_is_said_and_neither_waited_nor_asked(
    server: PeerServer, client: HuggingFaceHub, who: str
) -> None:
    server.have("org/lora", adapter())
    server.refuse = once(429, "^/api/models", SAYS[who](3000))
    for _ in range(3):
        with pytest.raises(UnavailableError, match="asks to wait 50 min") as caught:
            client.look_up("org/lora")
    assert (caught.value.code, caught.value.hint) == ("hub-unavailable", "try again in 50 min")
    assert len(server.asked) == 1


def test_a_hub_that_stays_unwell_is_left_alone_after_a_handful(server: PeerServer, client: HuggingFaceHub) -> None:
    server.refuse = lambda _method, _path: (503, b'{"error": "down for a while"}')
    paused: list[float] = []
    with pytest.raises(UnavailableError, match="down for a while"):
        client.pausing(paused.append).look_up("org/lora")
    assert len(server.asked) == len(paused) + 1 == 5
    assert paused == sorted(paused)


@pytest.mark.parametrize("said", ["soon", "-1", "0", "9" * 5000, "1e3", ""])
def test_a_time_that_is_none_is_no_reason_to_hurry(server: PeerServer, client: HuggingFaceHub, said: str) -> None:
    repository = server.have("org/lora", adapter())
    server.refuse = once(429, "^/api/models", {"Retry-After": said})
    paused: list[float] = []
    assert client.pausing(paused.append).look_up("org/lora").commit == repository.head
    assert len(paused) == 1
    assert paused[0] >= 1


def test_what_is_refused_for_another_reason_is_not_asked_again(server: PeerServer, client: HuggingFaceHub) -> None:
    server.refuse = lambda _method, _path: (409, b'{"error": "no"}')
    with pytest.raises(ConflictError):
        client.pausing(pytest.fail).look_up("org/lora")
    assert len(server.asked) == 1


def test_all_that_import_at_the_same_time_wait_when_one_is_told_to(
    store: Registry, server: PeerServer, client: HuggingFaceHub
) -> None:
    wanted = []
    for number in range(12):
        server.have(f"org/lora-{number}", adapter(number + 0.5))
        wanted.append(Wanted(HubAddress(f"org/lora-{number}"), AdapterName.parse(f"org/lora-{number}")))
    server.refuse = window = Window(9, 3)
    done = list(import_many(wanted, hub=client, shelf=store.shelf(), jobs=3))
    assert all(isinstance(one, Imported) for one in done), done
    assert len(done) == 12
    assert 1 <= window.refused <= 3  # those that were asking already


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_a_list_that_waits_can_be_interrupted(
    command: Command, server: PeerServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    server.have("org/lora", adapter())
    (tmp_path / "list").write_text("hf://org/lora\n")
    told = Event()

    def refuse(_method: str, _path: str) -> Refusal:
        told.set()
        return 429, b"{}", SAYS["RateLimit"](200)

    server.refuse = refuse
    running = command.start("import", "--list", tmp_path / "list", *options)
    assert told.wait(60)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, "Traceback" in said) == (130, False), said
    assert ("the Hub asks to wait 4 min" in said) == (not options)


@pytest.mark.parametrize("status", [429, 503])
def test_a_push_goes_on_when_the_hub_does(
    store: Registry, server: PeerServer, client: HuggingFaceHub, write_adapter: WriteAdapter, tmp_path: Path, status: int
) -> None:
    """Whatever it asks is refused once: repository, list, files, commit and tag are there once, all the same."""
    store.push(write_adapter("mine"), name="acme/mine")
    server.refuse = once(status, "^/api/(models|repos|validate)", {"Retry-After": "0"})
    sent = _send(store, client.pausing(lambda _seconds: None), tmp_path)
    repository = server.repositories["acme/mine"]
    assert repository.titles == ["initial commit", "acme/mine@1"]
    assert repository.tags == {"v1": sent} == {"v1": repository.head}


def _send(store: Registry, hub: HuggingFaceHub, work: Path) -> str | None:
    from registry.operations.hub_push import push_to_hub
    from registry.operations.parcel import parcel_of_version

    version = store.catalog.resolve(store.reference("acme/mine"))
    place = work / "parcel"
    place.mkdir()
    parcel = parcel_of_version(version, "acme/mine", place, base="org/base", shelf=store.shelf())
    return push_to_hub(parcel, "acme/mine", hub=hub, pause=lambda _seconds: None).commit


@pytest.mark.parametrize("status", [502, 504])
def test_a_tag_whose_answer_was_lost_is_not_made_twice(server: PeerServer, client: HuggingFaceHub, status: int) -> None:
    repository = server.have("org/lora", adapter())
    server.refuse = once(status, "/tag/")
    with pytest.raises(UnavailableError):
        client.pausing(pytest.fail).add_tag("org/lora", "v1", repository.head)
    assert len(server.asked) == 1


def test_a_base_is_waited_for_too(command: Command, server: PeerServer) -> None:
    """The library says of a head that was refused that a file is in no cache; what the Hub said is behind that."""
    weights = safetensors_bytes({"model.embed_tokens.weight": ("F32", (2, 2), bytes(16))})
    server.have("org/base", {"config.json": b'{"model_type": "llama"}', "model.safetensors": weights})
    server.refuse = once(429, "^/(api/models/)?org/base", {"Retry-After": "1"})
    said = command("base", "add", "org/base")
    assert said.code == 0, said.err
    server.refuse = lambda method, _path: (429, b"{}", {"Retry-After": "3000"}) if method == "HEAD" else None
    refused = command("base", "add", "org/base")
    assert (refused.code, "asks to wait 50 min" in refused.error["message"]) == (8, True), refused.err
