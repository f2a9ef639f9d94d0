"""Networks that fail at chosen bytes, on the way up and on the way down: a push is one version and a pull is whole, or neither
is anything. Afterwards the store is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.api.settings import Settings
from registry.blobs import remote as remote_blobs
from registry.connect import Registry, connect
from registry.errors import UnavailableError
from registry.remote import client as remote_client
from tests.api.served import served
from tests.api.wires import Trouble, Way, Wire, wire
from tests.conftest import WriteAdapter, lora_tensors
from tests.hub_protocol.running import Server, run_client, serving

pytestmark = pytest.mark.slow
WIDTH = 20_000  # 320 kB of weights
SHARES = (0.0, 0.001, 0.1, 0.5, 0.9, 0.99)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Registry]:
    shelf = connect(tmp_path / "store")
    with shelf.catalog.writing():
        pass
    yield shelf
    assert shelf.doctor(deep=True).problems == ()
    assert list((tmp_path / "store" / "staging").iterdir()) == []


@pytest.fixture
def between(here: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Blobs go in pieces, so that those of the weights are resumed; pauses are short."""
    monkeypatch.setattr(remote_blobs, "_PIECE", 1 << 16)
    monkeypatch.setattr(remote_client.random, "uniform", lambda low, _high: low / 10)
    with served(Settings(tmp_path / "store", pushes_per_minute=1_000_000)) as address, wire(address) as made:
        yield made


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("how", ["end", "reset", "slow"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_push_is_one_version_wherever_the_wire_breaks(
    here: Registry, between: Wire, write_adapter: WriteAdapter, way: Way, how: Trouble
) -> None:
    far = connect(between.address)
    far.push(write_adapter("measure", lora_tensors(width=WIDTH, value=0.1)))
    total = between.carried[way]
    for number, share in enumerate(SHARES):
        between.fail(way, int(total * share), how)
        pushed = far.push(write_adapter(f"x{number}", lora_tensors(width=WIDTH, value=0.2 + number)))
        assert (pushed.version.number, between.happened) == (1, number + 1)
    assert len(here.list()) == len(SHARES) + 1


@pytest.mark.parametrize("how", ["end", "reset", "slow"])
def test_a_pull_is_whole_wherever_the_wire_breaks(
    here: Registry, between: Wire, write_adapter: WriteAdapter, tmp_path: Path, how: Trouble
) -> None:
    source = write_adapter("x", lora_tensors(width=WIDTH))
    here.push(source)
    far = connect(between.address)
    far.pull("x", tmp_path / "measure")
    total = between.carried["down"]
    for number, share in enumerate(SHARES):
        between.fail("down", int(total * share), how)
        far.pull("x", tmp_path / f"back{number}")
        assert contents(tmp_path / f"back{number}").items() >= contents(source).items()
        assert between.happened == number + 1
    assert between.carried["down"] < 1.3 * total * (len(SHARES) + 1)  # what had come did not come again


def test_a_file_comes_through_a_wire_that_never_carries_all_of_it(
    here: Registry, between: Wire, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    source = write_adapter("x", lora_tensors(width=WIDTH))
    here.push(source)
    for _ in range(30):
        between.fail("down", 60_000, "reset")
    connect(between.address).pull("x", tmp_path / "back")
    assert contents(tmp_path / "back").items() >= contents(source).items()
    assert between.happened > 4


def test_a_file_goes_through_a_wire_that_never_carries_all_of_it(
    here: Registry, between: Wire, write_adapter: WriteAdapter
) -> None:
    """A server may lose what it had not read yet, 64 KiB; the rest stays."""
    for _ in range(30):
        between.fail("up", 300_000, "end")
    pushed = connect(between.address).push(write_adapter("x", lora_tensors(width=8 * WIDTH)))
    assert (pushed.version.number, between.happened > remote_blobs._ATTEMPTS + 1) == (1, True)


def test_a_transfer_may_last_longer_than_a_server_is_waited_for(
    here: Registry, between: Wire, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took until the wire broke, the upload goes on where it stood."""
    far = connect(between.address)
    far.push(write_adapter("measure", lora_tensors(width=WIDTH, value=0.1)))
    total = between.carried["up"]
    monkeypatch.setattr(remote_client, "_ALTOGETHER", 0.0)
    between.fail("up", total * 3 // 4, "reset")
    far.push(write_adapter("x", lora_tensors(width=WIDTH)))
    assert (between.happened, between.carried["up"] < 2.6 * total) == (1, True)


def test_what_arrived_is_not_sent_again_if_only_the_answer_was_lost(
    here: Registry, between: Wire, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = connect(between.address)
    far.push(write_adapter("measure", lora_tensors(width=WIDTH, value=0.1)))
    total = between.carried["up"]
    monkeypatch.setattr(remote_client.Client, "patch", _answer_lost(remote_client.Client.patch))
    far.push(write_adapter("x", lora_tensors(width=WIDTH)))
    assert between.carried["up"] < 2.1 * total


def _answer_lost(patch: Callable[..., None]) -> Callable[..., None]:
    def lost(*arguments: object, **more: object) -> None:
        patch(*arguments, **more)
        raise remote_client.InterruptedTransferError("the connection broke")

    return lost


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_wire_that_carries_nothing_is_said_and_nothing_is_left(
    here: Registry, between: Wire, write_adapter: WriteAdapter, tmp_path: Path, way: Way
) -> None:
    here.push(write_adapter("x"))
    far = connect(between.address)
    for _ in range(200):
        between.fail(way, 0, "reset")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        far.pull("x", tmp_path / "back")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        far.push(write_adapter("y", lora_tensors(value=2)))
    assert not (tmp_path / "back").exists()
    assert [str(version.adapter) for version in here.list()] == ["local/x"]


DOWNLOAD = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


@pytest.mark.parametrize("version", ["installed", "0.36.2"])
def test_a_client_of_the_hub_gets_whole_files_over_a_wire_that_breaks(
    tmp_path: Path, write_adapter: WriteAdapter, version: str
) -> None:
    """It resumes by a range; where it gives up, its cache goes on with the next attempt."""
    source = write_adapter("x", lora_tensors(width=WIDTH))
    shelf = connect(tmp_path / "store")
    shelf.push(source, name="team/x")
    with serving(tmp_path / "store") as server, wire(server.address) as made:
        through = Server(made.address, server.store, server.tokens)
        for number, how in enumerate(("end", "reset", "slow")):
            made.fail("down", 300_000, how)  # type: ignore[arg-type]
            for _ in range(3):
                done = run_client(through, tmp_path / f"home{number}", "-c", DOWNLOAD, "team/x", version=version)
                if done.returncode == 0:
                    break
            assert done.returncode == 0, done.stderr
            assert made.happened == number + 1
            assert contents(Path(done.stdout.strip())).items() >= contents(source).items()
    assert shelf.doctor(deep=True).problems == ()
