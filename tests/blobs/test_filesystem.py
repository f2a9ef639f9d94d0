"""The store in files, and what only files can do wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from registry.blobs.filesystem import FilesystemBlobs, write_all
from registry.domain.digest import Digest
from registry.errors import DigestMismatchError, UnavailableError
from tests.blobs.contract import DATA, DIGEST, BlobStoreContract


@pytest.fixture
def blobs(tmp_path: Path) -> FilesystemBlobs:
    return FilesystemBlobs(tmp_path / "blobs", staging=tmp_path / "staging")


class TestFilesystemBlobs(BlobStoreContract):
    pass


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_a_blob_is_named_for_its_digest_and_read_only(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put(DIGEST, (DATA,))
    path = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list(blobs.strangers()) == []


def test_short_writes_are_gone_on_with(blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data[:100])))
    blobs.put(DIGEST, (DATA,))
    assert b"".join(blobs.read(DIGEST)) == DATA


def test_a_disk_that_lies_is_found_out(blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "write", lambda _descriptor, data: len(data))
    with pytest.raises(DigestMismatchError):
        blobs.put(DIGEST, (DATA,))
    assert files(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_refusal_of_the_system_is_unavailable_and_leaves_nothing(
    blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    blobs.put(Digest.of(b"x"), (b"x",))  # the directories are there
    before = files(tmp_path)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UnavailableError) as caught:
        blobs.put(DIGEST, (DATA,))
    assert caught.value.code == "no-space"
    assert files(tmp_path) == before


def test_strangers_are_named(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    blobs.put(DIGEST, (DATA,))
    shard = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2]
    (shard / DIGEST.hex).chmod(0o644)
    (shard / "notes.txt").write_text("x")
    found = {path.name: why for path, why in blobs.strangers()}
    assert found["notes.txt"] == "is not named for a digest"
    assert "writable" in found[DIGEST.hex]


def test_only_what_nobody_holds_is_a_leftover(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "dead").write_text("x")

    def chunks():
        assert [path.name for path in blobs.leftovers()] == ["dead"]
        yield DATA

    blobs.put(DIGEST, chunks())


def test_write_all_writes_all(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, DATA)
    os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == DATA
