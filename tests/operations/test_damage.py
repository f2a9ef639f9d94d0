"""Damage is found, named with the versions that own it, and never handed out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.errors import CorruptionError
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def damaged(store: Registry, write_adapter: WriteAdapter) -> Registry:
    """Two versions that share their weights, and a third of its own."""
    store.push(write_adapter("a"))
    store.push(write_adapter("b", lora_alpha=8), name="a")
    store.push(write_adapter("c", lora_tensors(value=0.25)))
    assert store.doctor(deep=True).problems == ()
    return store


def blob(store: Registry, reference: str, path: str, root: Path) -> Path:
    entry = next(each for each in store.show(reference).manifest.files if each.path == path)
    return root / "registry" / "blobs" / "sha256" / entry.digest.hex[:2] / entry.digest.hex


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    path.chmod(0o444)


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_a_file_is_missed_by_nobody(damaged: Registry, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    harm(blob(damaged, "a@1", "adapter_model.safetensors", tmp_path))
    (problem,) = damaged.doctor(deep=True).problems
    assert problem.owners == ("local/a@1", "local/a@2")
    for reference in ("a@1", "a@2"):
        with pytest.raises(CorruptionError):
            damaged.pull(reference, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []
    damaged.pull("c", tmp_path / "out")


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_so_is_a_manifest(damaged: Registry, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    digest = damaged.show("c").version.digest
    harm(tmp_path / "registry" / "blobs" / "sha256" / digest.hex[:2] / digest.hex)
    owners = {owner for problem in damaged.doctor(deep=True).problems for owner in problem.owners}
    assert owners == {"local/c@1"}
    with pytest.raises(CorruptionError):
        damaged.show("c")
    assert len(damaged.list()) == 2


def test_pushing_again_heals_what_is_gone(damaged: Registry, tmp_path: Path) -> None:
    blob(damaged, "c", "adapter_model.safetensors", tmp_path).unlink()
    damaged.push(tmp_path / "c", tags={"again": "yes"})
    assert damaged.doctor(deep=True).problems == ()


def test_a_collection_takes_what_nobody_needs_and_nothing_else(damaged: Registry, tmp_path: Path) -> None:
    before = damaged.show("a@1").document()
    damaged.delete("a@2", "because")
    damaged.delete("c", "because")
    planned = damaged.gc(grace=0, dry_run=True)
    assert len(planned.blobs) == 4  # two manifests, the config of a@2, the weights of c
    assert damaged.gc(grace=3600).blobs == ()
    assert set(damaged.gc(grace=0).blobs) == set(planned.blobs)
    assert damaged.show("a@1").document() == before
    assert damaged.doctor(deep=True).problems == ()
    damaged.pull("a@1", tmp_path / "out")


def test_a_number_is_never_used_again(damaged: Registry, tmp_path: Path) -> None:
    damaged.delete("c", "because")
    damaged.gc(grace=0)
    assert damaged.push(tmp_path / "c").version.number == 2
    (tmp_path / "registry" / "catalog.db").unlink()
    damaged.rebuild()
    damaged.delete("c@2", "because")
    assert damaged.push(tmp_path / "c").version.number == 3


def test_pushing_the_same_writes_nothing(damaged: Registry, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in (tmp_path / "registry").rglob("*")
        }

    before = state()
    again = damaged.push(tmp_path / "a")
    assert (again.created, again.version.reference) == (False, "local/a@1")
    assert state() == before


def test_unchanged_files_are_shared(damaged: Registry, tmp_path: Path) -> None:
    first = blob(damaged, "a@1", "adapter_model.safetensors", tmp_path)
    assert blob(damaged, "a@2", "adapter_model.safetensors", tmp_path) == first


@pytest.mark.parametrize("name", ["a", "another"])
def test_nothing_is_acknowledged_on_top_of_rotten_bytes(damaged: Registry, tmp_path: Path, name: str) -> None:
    """Pushed again as the version it was, or under another name: the good bytes at hand take the place of the bad."""
    flip(blob(damaged, "a@1", "adapter_model.safetensors", tmp_path))
    damaged.push(tmp_path / "a", name=name)
    assert damaged.doctor(deep=True).problems == ()
    damaged.pull("a@1", tmp_path / "out")


def test_what_was_allowed_in_vain_and_what_is_yanked_is_said(damaged: Registry, tmp_path: Path) -> None:
    damaged.yank("c", "bad data")
    findings = damaged.push(tmp_path / "c", allow=["nonfinte"]).findings
    assert [finding.rule for finding in findings] == ["base-not-checked", "nothing-to-allow", "version-yanked"]
