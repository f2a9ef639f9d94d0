"""Merged checkpoints, whose making the server cannot repeat: what their manifests say of files is held against the files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.lineage import LineageEdge
from registry.domain.manifest import MERGED, FileEntry, FileRole, Manifest, Target
from registry.domain.tensors import TensorSpec
from registry.operations.describe import describe
from tests.api.sites import Answer, Site, site
from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes

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
    return send_bytes(here, files, manifest.canonical_bytes)


def send_bytes(here: Site, files: Mapping[str, bytes], manifest: bytes) -> Answer:
    for data in (*files.values(), manifest):
        assert here.ask("PUT", f"/v1/blobs/{Digest.of(data)}", "bob", data).status < 300
    facts = {"note": None, "fingerprint": None, "weights_fingerprint": None, "findings": []}
    step = {"do": "add_version", "adapter": "b/merged", "manifest": manifest.decode(), **facts}
    return here.ask("POST", "/v1/transactions", "bob", {"steps": [step], "commit": True})


def test_a_merged_checkpoint_that_is_one_is_a_version(here: Site, tmp_path: Path) -> None:
    assert send(here, CHECKPOINT, stated(CHECKPOINT)).status == 200
    here.shelf.pull("b/merged", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CHECKPOINT


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "A.md\0"])
def test_no_file_of_it_lies_elsewhere(here: Site, path: str) -> None:
    files = {**CHECKPOINT, "A.md": b"x"}
    forged = stated(files).canonical_bytes.replace(b'"A.md"', json.dumps(path).encode())
    answer = send_bytes(here, files, forged)
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


EDGE = LineageEdge(Digest.of(b""), "merged-with", 0.5, "a/b@1")


@pytest.mark.parametrize(
    "said",
    [
        {"variant": "\ud800"}, {"variant": "other"}, {"task_type": "CAUSAL_LM"}, {"targets": (Target("x"),)},
        {"extra_modules": ("x",)}, {"absent_targets": ("x",)}, {"base_change": "pissa"}, {"peft_version": "1"},
        {"base_model": BaseModelId("x" * 5000)}, {"base_model": BaseModelId("a\nb")}, {"base_model": BaseModelId(7)},  # type: ignore[arg-type]
        {"training": {"merge": "x"}}, {"training": {"merge": {"a": "\ud800"}}}, {"lineage": (replace(EDGE, reference="a\x1b[2J"),)},
        {"files": tuple(replace(entry, role=FileRole.SIDECAR) for entry in stated(CHECKPOINT).files)},
    ],
)
def test_it_says_nothing_that_a_merge_does_not(here: Site, said: dict[str, object]) -> None:
    answer = send(here, CHECKPOINT, replace(stated(CHECKPOINT), **said))  # type: ignore[arg-type]
    assert (answer.status, answer.code) == (400, "manifest-differs")


def test_what_it_was_made_of_is_told_by_nothing_else(here: Site) -> None:
    training = {"merge": {"dtype": "keep"}, "verified": {"elements": 4}}
    assert send(here, CHECKPOINT, replace(stated(CHECKPOINT), lineage=(EDGE,), training=training)).status == 200
    shown = here.ask("GET", "/v1/adapters/b/merged/versions/1/lineage", "root").json["parents"]
    assert [(edge["kind"], edge["weight"], edge["reference"]) for edge in shown] == [("merged-with", 0.5, "a/b@1")]


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_number_that_no_journal_can_hold_is_refused(here: Site, number: str) -> None:
    manifest = replace(stated(CHECKPOINT), training={"merge": {"x": 1234567}})
    step = {"do": "add_version", "adapter": "b/merged", "manifest": manifest.canonical_bytes.decode().replace("1234567", number),
            "note": None, "fingerprint": None, "weights_fingerprint": None, "findings": []}  # fmt: skip
    answer = here.ask("POST", "/v1/transactions", "bob", {"steps": [step], "commit": True})
    assert (answer.status, answer.code) == (400, "manifest-differs")


@pytest.mark.parametrize("reference", ["not a reference!!", "../x", "\x1b[2J", "x" * 4000, "/home/someone/adapter"])
def test_an_odd_name_of_a_parent_hides_the_version_from_nobody(here: Site, reference: str, write_adapter: WriteAdapter) -> None:
    described = describe(write_adapter("odd", lora_tensors(value=0.125)), lineage=(replace(EDGE, reference=reference),))
    for data in (*(path.read_bytes() for path in described.paths.values()), described.manifest.canonical_bytes):
        here.ask("PUT", f"/v1/blobs/{Digest.of(data)}", "bob", data)
    step = {"do": "add_version", "adapter": "b/odd", "manifest": described.manifest.canonical_bytes.decode(),
            "note": None, "fingerprint": None, "weights_fingerprint": None, "findings": []}  # fmt: skip
    assert here.ask("POST", "/v1/transactions", "bob", {"steps": [step], "commit": True}).status == 200
    version = "/v1/adapters/b/odd/versions/1"
    for path in (version, f"{version}/lineage", "/v1/resolve/b/odd", "/api/models/b/odd"):
        assert here.ask("GET", path, "root").status == 200
