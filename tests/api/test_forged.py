"""Merged checkpoints, whose making the server cannot repeat: what their manifests say of files is held against the files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.manifest import MERGED, FileEntry, Manifest
from registry.domain.tensors import TensorSpec
from tests.api.sites import Answer, Site, site
from tests.conftest import WriteAdapter, floats, safetensors_bytes

WEIGHTS = "model.safetensors"
CHECKPOINT = {
    "config.json": json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}).encode(),
    WEIGHTS: safetensors_bytes({"wte.weight": ("F32", (2, 2), floats(0.5, count=4))}),
    "README.md": b"# merged\n",
}
TENSORS = (TensorSpec("wte.weight", "F32", (2, 2), 0, 16),)
PICKLE = b"\x80\x04cposix\nsystem\n(S'true'\ntR."


@pytest.fixture
def here(tmp_path: Path, write_adapter: WriteAdapter) -> Iterator[Site]:
    with site(tmp_path, write_adapter) as found:
        yield found


def stated(files: Mapping[str, bytes], tensors: tuple[TensorSpec, ...] = TENSORS, **sizes: int) -> Manifest:
    entries = [FileEntry(path, Digest.of(data), sizes.get(path.split(".")[0], len(data))) for path, data in sorted(files.items())]
    weights = [[entry.path, entry.digest] for entry in entries if entry.path.endswith(".safetensors")]
    identity = Digest.of(json.dumps(weights).encode())
    return Manifest(MERGED, "merged", BaseModelId("openai-community/gpt2"), None, (), tensors, identity, tuple(entries))


def send(here: Site, files: Mapping[str, bytes], manifest: Manifest) -> Answer:
    for data in (*files.values(), manifest.canonical_bytes):
        assert here.ask("PUT", f"/v1/blobs/{Digest.of(data)}", "bob", data).status < 300
    facts = {"note": None, "fingerprint": None, "weights_fingerprint": None, "findings": []}
    step = {"do": "add_version", "adapter": "b/merged", "manifest": manifest.canonical_bytes.decode(), **facts}
    return here.ask("POST", "/v1/transactions", "bob", {"steps": [step], "commit": True})


def test_a_merged_checkpoint_that_is_one_is_a_version(here: Site, tmp_path: Path) -> None:
    assert send(here, CHECKPOINT, stated(CHECKPOINT)).status == 200
    here.shelf.pull("b/merged", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CHECKPOINT


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "A.md\0"])
def test_no_file_of_it_lies_elsewhere(here: Site, path: str) -> None:
    files = {**CHECKPOINT, path: b"x"}
    answer = send(here, files, stated(files))
    assert (answer.status, answer.code) == (400, "manifest-differs")
    assert here.ask("GET", "/v1/adapters/b/merged", "bob").status == 404


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "modeling_x.py", "adapter_config.json", "more/a.json"])
def test_nothing_lies_beside_the_checkpoint_that_a_loader_would_take_up(here: Site, name: str) -> None:
    files = {**CHECKPOINT, name: PICKLE}
    answer = send(here, files, stated(files))
    assert (answer.status, answer.code) == (400, "manifest-differs")


@pytest.mark.parametrize(
    ("files", "tensors", "sizes"),
    [
        (CHECKPOINT, (), {}),
        (CHECKPOINT, (TensorSpec("wte.weight", "F16", (2, 2), 0, 8),), {}),
        (CHECKPOINT, (*TENSORS, *TENSORS), {}),
        (CHECKPOINT, TENSORS, {"README": 1}),
        ({**CHECKPOINT, WEIGHTS: struct.pack("<Q", 1 << 40)}, TENSORS, {}),
        ({"config.json": CHECKPOINT["config.json"]}, (), {}),
        ({"adapter_config.json": b"{}", "adapter_model.bin": PICKLE}, (), {}),
    ],
)
def test_what_it_says_of_its_files_is_what_they_are(
    here: Site, files: dict[str, bytes], tensors: tuple[TensorSpec, ...], sizes: dict[str, int]
) -> None:
    answer = send(here, files, stated(files, tensors, **sizes))
    assert answer.status in (400, 404)
    assert here.ask("GET", "/v1/adapters/b/merged", "bob").status == 404
