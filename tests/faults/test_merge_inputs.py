"""Inputs of a merge that are broken, or change while they are read: it ends, nothing is left, and they are as they were."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import registry.operations.merge as merging
import registry.transforms.crew as crews
import registry.transforms.outputs as outputs
from registry.connect import connect
from registry.errors import InvalidInputError, NotFoundError, RegistryError, UnavailableError
from tests.conftest import safetensors_bytes
from tests.faults.checkpoints import INDEX, SHARDS, digests, header, inodes, tensors
from tests.faults.conftest import EVERYTHING
from tests.faults.merges import AtCall, Kitchen, Said, out, partial, refused
from tests.faults.scenes import sample
from tests.faults.server import Job, Server
from tests.faults.shim import Fault, read_trace

TOUCHED = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def base(kitchen: Kitchen, tmp_path: Path) -> Path:
    """One's own, to break."""
    return shutil.copytree(kitchen.base, tmp_path / "base")


@pytest.fixture
def adapter(kitchen: Kitchen, tmp_path: Path) -> Path:
    return shutil.copytree(kitchen.adapter, tmp_path / "adapter")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def cut_by_one(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def longer_by_one(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def without_a_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(data)


def with_a_torn_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40:48] = b"\0" * 8
    path.write_bytes(data)


def with_nan(path: Path) -> None:
    found = dict(tensors(path))
    kind, shape, data = found[TOUCHED]
    found[TOUCHED] = (kind, shape, data[:-2] + b"\xc0\x7f")
    path.write_bytes(safetensors_bytes(found, {"format": "pt"}))


def without_a_tensor(path: Path) -> None:
    found = {name: tensor for name, tensor in tensors(path).items() if name != TOUCHED}
    path.write_bytes(safetensors_bytes(found, {"format": "pt"}))


def empty(path: Path) -> None:
    os.truncate(path, 0)


BROKEN: dict[str, tuple[Callable[[Path], None], str, type[RegistryError]]] = {
    "shard cut by one byte": (cut_by_one, SHARDS[1], InvalidInputError),
    "shard longer by one byte": (longer_by_one, SHARDS[3], InvalidInputError),
    "shard without a header": (without_a_header, SHARDS[1], InvalidInputError),
    "shard with a torn header": (with_a_torn_header, SHARDS[2], InvalidInputError),
    "shard with NaN": (with_nan, SHARDS[1], InvalidInputError),
    "shard without a promised tensor": (without_a_tensor, SHARDS[1], InvalidInputError),
    "shard empty": (empty, SHARDS[0], InvalidInputError),
    "shard missing": (Path.unlink, SHARDS[2], NotFoundError),
    "index cut": (cut_in_half, INDEX, InvalidInputError),
    "config cut": (cut_in_half, "config.json", InvalidInputError),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_base_is_refused_and_nothing_is_left(kitchen: Kitchen, base: Path, there: Path, case: str) -> None:
    change, name, error = BROKEN[case]
    change(base / name)
    before = digests(base)
    with pytest.raises(error) as caught:
        kitchen.merge(base, [kitchen.adapter], there / "out")
    assert list(there.iterdir()) == []
    assert digests(base) == before
    assert name in str(caught.value)


@pytest.mark.parametrize("change", [cut_by_one, longer_by_one, without_a_header, with_a_torn_header, empty])
def test_a_broken_adapter_is_refused_and_nothing_is_left(
    kitchen: Kitchen, adapter: Path, there: Path, change: Callable[[Path], None]
) -> None:
    change(adapter / "adapter_model.safetensors")
    with pytest.raises(InvalidInputError):
        kitchen.merge(kitchen.base, [adapter], there / "out")
    assert list(there.iterdir()) == []


def overwritten(path: Path) -> None:
    """As long as before."""
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\1\0\1")


def replaced(path: Path) -> None:
    """By an equal file of the same size and time, under the same name."""
    copy = path.with_name("another")
    shutil.copy2(path, copy)
    os.replace(copy, path)


MEANWHILE = (longer_by_one, overwritten, replaced, cut_in_half, Path.unlink)


@pytest.mark.parametrize("when", ["first", "middle", "last"])
@pytest.mark.parametrize("name", [SHARDS[0], SHARDS[3], "adapter"])
@pytest.mark.parametrize("change", MEANWHILE, ids=lambda change: change.__name__)
def test_an_input_that_changes_meanwhile_ends_the_merge(
    kitchen: Kitchen, base: Path, adapter: Path, there: Path, change: Any, name: str, when: str
) -> None:
    """Whatever was read of it already, and whether it will be read again."""
    path = adapter / "adapter_model.safetensors" if name == "adapter" else base / name
    at = {"first": 1, "middle": kitchen.blocks // 2, "last": kitchen.blocks}[when]
    with pytest.raises(InvalidInputError) as caught:
        kitchen.merge(base, [adapter], there / "out", progress=AtCall(at, lambda: change(path)))
    assert caught.value.code == "changed-while-read"
    assert str(path) in caught.value.message
    assert list(there.iterdir()) == []
    if when == "middle":
        shutil.rmtree(base)
        shutil.copytree(kitchen.base, base)
        shutil.copyfile(kitchen.adapter / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
        kitchen.merge(base, [adapter], there / "out")
        assert digests(there / "out").keys() == kitchen.wanted.keys()


def test_a_base_that_changes_between_plan_and_reading_ends_the_merge(
    kitchen: Kitchen, base: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table was read, and its tensors lie no longer where the plan says."""
    begin = merging.workplace

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        path = base / SHARDS[1]
        path.write_bytes(safetensors_bytes(tensors(path), {"format": "pt", "saved": "again"}))
        return begin(*arguments, **options)

    monkeypatch.setattr(merging, "workplace", meanwhile)
    with pytest.raises(InvalidInputError) as caught:
        kitchen.merge(base, [kitchen.adapter], there / "out")
    assert caught.value.code == "changed-while-read"
    assert list(there.iterdir()) == []


def test_a_block_that_cannot_be_written_is_never_taken_for_done(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late its failure is heard of. The last one of a file is waited for and nothing comes behind it."""
    write, done = outputs.write_at, crews.Crew._done

    def failing(descriptor: int, data: memoryview, start: int) -> None:
        is_last = start + len(data) == os.fstat(descriptor).st_size
        if is_last and "model-00004" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, data, start)

    def slow(self: Any, future: Any) -> None:
        time.sleep(0.02)
        done(self, future)

    monkeypatch.setattr(outputs, "write_at", failing)
    monkeypatch.setattr(crews.Crew, "_done", slow)
    work = kitchen.work()
    with pytest.raises(UnavailableError):
        kitchen.again(work)
    assert SHARDS[3] not in inodes(partial(work))
    monkeypatch.undo()
    assert kitchen.violations(work) == []


# What is merged, when it is verified


@pytest.fixture
def merged(kitchen: Kitchen) -> Path:
    work = kitchen.work()
    kitchen.again(work)
    return out(work)


def flip(path: Path, tensor: str) -> None:
    """One bit, the lowest of the significand's upper half, of the tensor's first element."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start + header(path)[tensor]["data_offsets"][0]] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("tensor", [TOUCHED, TOUCHED.replace("q_proj", "k_proj")])
def test_one_bit_that_flipped_is_found(
    kitchen: Kitchen, merged: Path, tmp_path: Path, tensor: str, whole: bool
) -> None:
    store = connect(tmp_path / "registry")
    assert store.verify(merged, kitchen.base, [kitchen.adapter], whole=whole).is_sound
    flip(merged / SHARDS[1], tensor)
    before = digests(merged)
    found = store.verify(merged, kitchen.base, [kitchen.adapter], whole=whole)
    assert (*found.wrong, *found.altered) == (tensor,)
    assert (found.missing, found.unexpected) == ((), ())
    assert digests(merged) == before


DAMAGED = {name: case for name, case in BROKEN.items() if name not in ("shard with NaN", "shard missing")}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_output_is_refused(kitchen: Kitchen, merged: Path, tmp_path: Path, case: str) -> None:
    change, name, error = DAMAGED[case]
    change(merged / name)
    before = digests(merged)
    with pytest.raises(error):
        connect(tmp_path / "registry").verify(merged, kitchen.base, [kitchen.adapter])
    assert digests(merged) == before


def test_an_output_without_a_file_is_exit_4(kitchen: Kitchen, merged: Path, tmp_path: Path) -> None:
    (merged / SHARDS[2]).unlink()
    with pytest.raises(NotFoundError):
        connect(tmp_path / "registry").verify(merged, kitchen.base, [kitchen.adapter])


@pytest.mark.slow
def test_a_disk_that_fails_while_it_is_verified_is_exit_8(kitchen: Kitchen, merge_server: Server, merged: Path) -> None:
    """At reads of tables and of weights."""
    work = merged.parents[1]
    common = ["--base", str(kitchen.base), "--adapter", str(kitchen.adapter), "--registry", str(work / "registry")]
    job = Job("program", {"arguments": ["verify", str(merged), *common], "temporary": str(work / "tmp")}, merged)
    trace = work / "trace"
    counting = replace(job, fault=Fault("nothing", 0, "read"), trace=trace)
    assert merge_server.run(counting).answer["exit"] == 0
    found = []
    for number in sample([call for call in read_trace(trace) if call.number], 8, everything=EVERYTHING):
        outcome = merge_server.run(replace(job, fault=Fault("errno", number, "read", value=errno.EIO)))
        assert outcome.answer is not None, outcome
        found += [f"read {number}: {each}" for each in refused(Said(**outcome.answer), {8: f"cannot read {merged}"})]
    assert not found, "\n".join(found)
    assert list((work / "tmp").iterdir()) == []
    assert digests(merged) == kitchen.wanted
