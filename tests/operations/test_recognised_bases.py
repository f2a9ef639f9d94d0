"""A directory that has the very weights of a base which the registry has hashed is that base; its path is on nobody's record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from registry.operations import bases
from registry.operations.bases import base_called
from registry.operations.check import adapter_in, check, under_alias
from registry.operations.manifests import manifest_of
from tests.conftest import lora_tensors
from tests.operations.adapters import write
from tests.operations.test_trained_weights import ID, base

UNPROVEN = "base-unproven"


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    return connect(tmp_path / "registry")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return base(tmp_path / "my-base", 0.5)


def rules(store: Registry, adapter: Path, directory: Path) -> set[str]:
    shelf = store.shelf()
    return {one.rule for one in check(under_alias(adapter_in(adapter), shelf), base_called(str(directory), shelf)).findings}


def test_the_weights_prove_it_and_the_shapes_do_not(store: Registry, here: Path, tmp_path: Path) -> None:
    adapter, other = write(tmp_path / "one", lora_tensors()), base(tmp_path / "other", 0.25)
    assert UNPROVEN in rules(store, adapter, here)
    store.add_base(here, name=ID)  # without its weights
    assert UNPROVEN in rules(store, adapter, here)
    store.add_base(here, name=ID, hash_weights=True)
    assert UNPROVEN not in rules(store, adapter, here)
    assert UNPROVEN in rules(store, adapter, other)
    pushed = {name: store.push(adapter, name=name, base=str(place)) for name, place in (("a", here), ("b", other))}
    assert {name: UNPROVEN in {one.rule for one in each.findings} for name, each in pushed.items()} == {"a": False, "b": True}
    stranger = write(tmp_path / "stranger", lora_tensors(), base_model_name_or_path="Somebody/other-model")
    assert "base-id" in rules(store, stranger, here)


def test_large_weights_are_not_read_for_a_check(
    store: Registry, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_base(here, name=ID, hash_weights=True)
    monkeypatch.setattr(bases, "_MOST_HASHED", 8)
    assert UNPROVEN in rules(store, write(tmp_path / "one", lora_tensors()), here)


def test_a_registry_that_cannot_be_read_keeps_nobody_from_checking(store: Registry, here: Path, tmp_path: Path) -> None:
    stored, _, _ = store.add_base(here, name=ID, hash_weights=True)
    (tmp_path / "registry" / "blobs" / "sha256" / stored.digest.hex[:2] / stored.digest.hex).unlink()
    assert base_called(str(here), store.shelf()).id.id is None


def test_of_two_names_for_the_same_weights_the_adapter_s_own_counts(store: Registry, here: Path, tmp_path: Path) -> None:
    for name in ("Mirror/copy", ID):
        store.add_base(here, name=name, hash_weights=True)
    assert base_called(str(here), store.shelf()).id.id is None
    assert base_called(str(here), store.shelf(), says=ID).id.id == ID
    pushed = store.push(write(tmp_path / "one", lora_tensors()), name="a", base=str(here))
    assert not {UNPROVEN, "base-id"} & {one.rule for one in pushed.findings}
    merged = store.merge(here, [tmp_path / "one"], tmp_path / "out", device="cpu")
    assert merged.prepared.identity.id.id == ID


def test_an_adapter_that_names_no_base_has_the_one_it_was_held_against(store: Registry, here: Path, tmp_path: Path) -> None:
    store.add_base(here, name=f"{ID}@{'1' * 40}", hash_weights=True)
    adapter = write(tmp_path / "one", lora_tensors(), base_model_name_or_path=str(tmp_path / "my-base"))
    pushed = store.push(adapter, name="a", base=str(here))
    recorded = manifest_of(pushed.version.digest, store.blobs).base_model
    assert (recorded.id, recorded.revision) == (ID, "1" * 40)
    assert not {UNPROVEN, "base-is-local-path"} & {one.rule for one in pushed.findings}


@pytest.mark.parametrize("is_hashed", [True, False])
def test_a_merge_records_the_base_and_no_path(store: Registry, here: Path, tmp_path: Path, *, is_hashed: bool) -> None:
    """Named by its weights, else as its adapters name it; and what is the same of both adapters is said once."""
    store.add_base(here, name=ID, hash_weights=is_hashed)
    adapters = [write(tmp_path / name, lora_tensors(value=value)) for name, value in (("one", 0.5), ("two", 0.25))]
    done = store.merge(here, adapters, tmp_path / "out", device="cpu", name="blend")
    assert [one.rule for one in done.prepared.findings].count(UNPROVEN) == (0 if is_hashed else 1)
    assert done.version is not None
    manifest = manifest_of(done.version.digest, store.blobs)
    assert (manifest.base_model.id, manifest.base_model.raw) == (ID, ID)
    assert manifest.training["merge"]["base_identity"] == ("named alike" if is_hashed else "not proven")  # type: ignore[index]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"The weights of {ID}" in card
    assert ("not proven" in card) is not is_hashed
    assert str(tmp_path) not in card + json.dumps(manifest.base_model.document())
    assert [edge.reference for edge in manifest.lineage] == ["one", "two"]
    assert [each.reference for each in store.list(base=ID)] == ["local/blend@1"]


def test_adapters_of_different_bases_name_none(store: Registry, here: Path, tmp_path: Path) -> None:
    one = write(tmp_path / "one", lora_tensors())
    two = write(tmp_path / "two", lora_tensors(value=0.25), base_model_name_or_path="/home/me/base")
    done = store.merge(here, [one, two], tmp_path / "out", device="cpu", name="blend")
    assert done.version is not None
    recorded = manifest_of(done.version.digest, store.blobs).base_model
    assert (recorded.id, recorded.raw) == (None, None)
    assert "The weights of a local checkpoint" in (tmp_path / "out" / "README.md").read_text()
