"""An adapter of the Hub that is merged lies in the client's cache, which compares lengths alone: what is in it is proved."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.errors import DigestMismatchError
from registry.operations.ingredients import find_adapter
from tests.conftest import WriteAdapter


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_cached_file_of_the_right_length_and_other_bytes_is_refused(
    store: Registry, write_adapter: WriteAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    source = write_adapter("x")
    cache = tmp_path / "models--org--lora"
    place = cache / "snapshots" / ("a" * 40)
    place.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in source.iterdir():
        data = path.read_bytes()
        blob = cache / "blobs" / etag(data, path.suffix)
        blob.write_bytes(data)
        (place / path.name).symlink_to(Path("../../blobs") / blob.name)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(place))
    assert find_adapter("hf://org/lora", tmp_path / "work", store.shelf()).adapter.manifest.rank == 2
    blob = (place / file).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DigestMismatchError, match=file):
        find_adapter("hf://org/lora", tmp_path / "again", store.shelf())
    assert not (tmp_path / "again").exists()


def etag(data: bytes, suffix: str) -> str:
    """As the Hub gives it: git's name for small files, the SHA-256 of those in its large file storage."""
    if suffix == ".safetensors":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
