"""The store in files, and what only files can do wrong."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.blobs.filesystem import FilesystemBlobs
from registry.disk import write_all
from registry.domain.digest import Digest
from registry.errors import DigestMismatchError, MissingBlobError, UnavailableError
from tests.blobs.contract import DATA, DIGEST, BlobStoreContract

SMALL = Digest.of(b"x")


@pytest.fixture
def blobs(tmp_path: Path) -> FilesystemBlobs:
    return FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")


class TestFilesystemBlobs(BlobStoreContract):
    pass


def place(root: Path, digest: Digest = DIGEST) -> Path:
    return root / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if not path.is_dir())


def test_a_blob_is_named_for_its_digest_and_read_only(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put(DIGEST, (DATA,))
    status = place(tmp_path).stat()
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert status.st_nlink == 1
    assert files(tmp_path) == [DIGEST.hex]
    assert list(blobs.strangers()) == []


def test_the_umask_makes_no_difference(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        blobs.put(DIGEST, (DATA,))
    finally:
        os.umask(before)
    assert stat.S_IMODE(place(tmp_path).stat().st_mode) == 0o444


def test_a_blob_is_never_rewritten(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put(DIGEST, (DATA,))
    before = place(tmp_path).stat()
    blobs.put(DIGEST, (DATA,))
    after = place(tmp_path).stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (after.st_ino, after.st_mtime_ns, after.st_ctime_ns)


def test_nothing_is_visible_before_all_of_it_is(blobs: FilesystemBlobs) -> None:
    def chunks() -> Iterator[bytes]:
        for step in range(10):
            assert list(blobs.digests()) == []
            with pytest.raises(MissingBlobError):
                blobs.size(DIGEST)
            yield DATA[step * 1000 : (step + 1) * 1000]

    blobs.put(DIGEST, chunks())
    assert list(blobs.digests()) == [DIGEST]


def test_two_writers_of_the_same_bytes_make_one_blob(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield DATA[:10]
        FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging").put(DIGEST, (DATA,))
        yield DATA[10:]

    blobs.put(DIGEST, chunks())
    assert files(tmp_path) == [DIGEST.hex]
    assert b"".join(blobs.read(DIGEST)) == DATA


def test_a_read_that_has_begun_survives_a_deletion(blobs: FilesystemBlobs) -> None:
    large = bytes(3 << 20)
    blobs.put(Digest.of(large), (large,))
    reading = blobs.read(Digest.of(large))
    first = next(reading)
    blobs.delete(Digest.of(large))
    assert first + b"".join(reading) == large


@pytest.mark.parametrize("most", [1, 100, 9_999])
def test_short_writes_are_gone_on_with(blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data[:most])))
    blobs.put(DIGEST, (DATA,))
    assert b"".join(blobs.read(DIGEST)) == DATA


@pytest.mark.parametrize(
    "lie",
    [
        lambda _write, _descriptor, data: len(data),
        lambda write, descriptor, data: write(descriptor, bytes(data[:-1])) + 1,
        lambda write, descriptor, data: write(descriptor, bytes(len(data))),
    ],
    ids=["writes nothing", "drops a byte", "writes zeros"],
)
def test_a_disk_that_lies_is_found_out(
    blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: Callable[..., int]
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: lie(write, descriptor, data))
    with pytest.raises((DigestMismatchError, UnavailableError)):
        blobs.put(DIGEST, (DATA,))
    assert files(tmp_path) == []


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "fchmod", "mkdir"])
@pytest.mark.parametrize(("number", "code"), [(28, "no-space"), (122, "no-space"), (5, "unavailable"), (30, "unavailable")])
def test_a_refusal_of_the_system_is_unavailable_and_leaves_nothing(
    blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, number: int, code: str
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    blobs.put(SMALL, (b"x",))
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(UnavailableError) as caught:
            blobs.put(DIGEST, (DATA,))
    assert (caught.value.code, caught.value.exit_code) == (code, 8)
    assert files(tmp_path) == before
    blobs.put(DIGEST, (DATA,))
    assert b"".join(blobs.read(DIGEST)) == DATA


@pytest.mark.parametrize("taken", ["blobs", "staging"])
def test_a_file_in_the_place_of_a_directory_is_said(blobs: FilesystemBlobs, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UnavailableError):
        blobs.put(DIGEST, (DATA,))
    assert (tmp_path / taken).read_text() == "mine"
    assert files(tmp_path) == [taken]


@pytest.mark.parametrize("kind", ["a directory", "a link to the right bytes", "a pipe", "a socket"])
def test_what_is_no_file_is_no_blob(
    blobs: FilesystemBlobs, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        monkeypatch.chdir(path.parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    else:
        (tmp_path / "secret").write_bytes(DATA)
        path.symlink_to(tmp_path / "secret")
    for ask in (blobs.size, blobs.read, lambda digest: blobs.put(digest, (DATA,))):
        with pytest.raises(MissingBlobError) as caught:  # and nothing waits for the other end of a pipe
            ask(DIGEST)
        assert caught.value.hint is not None
        assert "taken its place" in caught.value.hint
    assert [why for _, why in blobs.strangers()] == ["is not a regular file"]


def test_strangers_are_named(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put(DIGEST, (DATA,))
    blobs.put(SMALL, (b"x",))
    shard = place(tmp_path).parent
    place(tmp_path).chmod(0o644)
    (shard / "notes.txt").write_text("x")
    (shard / SMALL.hex).write_bytes(b"x")  # a sound name on the wrong shelf
    (shard.parent / "README").write_text("x")
    (shard.parent / "zz").mkdir()
    found = {path.relative_to(shard.parent).as_posix(): why for path, why in blobs.strangers()}
    assert set(found) == {
        f"{shard.name}/{DIGEST.hex}", f"{shard.name}/notes.txt", f"{shard.name}/{SMALL.hex}", "README", "zz"
    }  # fmt: skip
    assert found[f"{shard.name}/{DIGEST.hex}"] == "is writable (mode 0644, expected 0444)"
    assert found[f"{shard.name}/notes.txt"] == "is not named for a digest"
    assert sorted(blobs.digests()) == sorted([DIGEST, SMALL])


def test_only_what_nobody_holds_is_a_leftover(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "dead").write_text("x")
    (tmp_path / "staging" / "link").symlink_to("/etc/hostname")

    def chunks() -> Iterator[bytes]:
        assert [path.name for path in blobs.leftovers()] == ["dead"]
        yield DATA

    blobs.put(DIGEST, chunks())


def test_a_leftover_is_locked_until_the_next_is_asked_for(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "dead").write_text("x")
    for path in blobs.leftovers():
        descriptor = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert [path.name for path in blobs.leftovers()] == ["dead"]


def test_age_counts_from_when_a_blob_was_stored(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    now = time.time()
    assert blobs.age(DIGEST, now=now) == 0.0
    blobs.put(DIGEST, (DATA,))
    os.utime(place(tmp_path), (now - 3600, now - 3600))
    assert blobs.age(DIGEST, now=now) == pytest.approx(3600)
    assert blobs.age(DIGEST, now=now - 7200) == 0.0  # a clock that was put back makes nothing old


def test_write_all_writes_all(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, DATA)
    os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_blob_that_a_collector_takes_meanwhile_is_stored_again(tmp_path: Path) -> None:
    """Between two looks at a file it may go: putting it must not fail for that."""
    store = FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")
    data = b"wanted"
    digest = Digest.of(data)
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            store.delete(digest)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for _ in range(150):
            store.put(digest, [data])
    finally:
        done.set()
        collector.join()
    store.put(digest, [data])
    assert b"".join(store.read(digest)) == data


def test_an_interrupt_as_a_file_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes out of the call that made the file."""
    blobs = FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")
    as_it_is = os.open

    def interrupted(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = as_it_is(path, *arguments, **options)
        if Path(path).parent == tmp_path / "staging":
            os.close(descriptor)
            raise KeyboardInterrupt
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        blobs.put(Digest.of(b"x"), iter((b"x",)))
    monkeypatch.undo()
    assert list((tmp_path / "staging").iterdir()) == []
