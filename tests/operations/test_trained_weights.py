"""A version belongs to the numbers that its base had when it was pushed, whatever the base's name comes to mean later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from registry.errors import RejectedError
from registry.operations.bases import base_called
from registry.operations.check import adapter_stored, check, under_alias
from tests.conftest import floats, lora_tensors, safetensors_bytes
from tests.operations.adapters import write

ID = "openai-community/gpt2"  # what the adapters of these tests say
Q = "model.layers.0.self_attn.q_proj"
REJECTED = 6


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    return connect(tmp_path / "registry")


def base(into: Path, value: float) -> Path:
    into.mkdir()
    tensors = {f"{Q}.weight": ("F32", (3, 3), floats(value, count=9))}
    (into / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (into / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return into


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return base(tmp_path / "first", 0.5)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return base(tmp_path / "second", 0.25)


def test_a_base_that_is_replaced_under_its_name_is_not_the_versions_own(
    store: Registry, first: Path, second: Path, tmp_path: Path
) -> None:
    theirs = store.add_base(first, name=ID, hash_weights=True)[1].weights_fingerprint
    version = store.push(write(tmp_path / "one", lora_tensors()), name="a").version
    assert version.summary.base_model.weights_fingerprint == theirs
    other = store.add_base(second, name=ID, hash_weights=True)[1].weights_fingerprint
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RejectedError) as caught:
        store.merge(second, ["a@1"], tmp_path / "out", device="cpu")
    assert (caught.value.code, caught.value.exit_code) == ("wrong-base", REJECTED)
    assert str(theirs) in caught.value.message
    assert str(other) in caught.value.message
    assert sorted(tmp_path.iterdir()) == before
    store.merge(first, ["a@1"], tmp_path / "out", device="cpu")  # whose bytes they are, whatever the registry has now
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_check_asks_for_the_weights_that_the_version_was_pushed_with(
    store: Registry, first: Path, second: Path, tmp_path: Path
) -> None:
    store.add_base(first, name=f"{ID}@one", hash_weights=True)
    directory = write(tmp_path / "one", lora_tensors())
    store.push(directory, name="a", base=f"{ID}@one")
    store.add_base(second, name=f"{ID}@one", hash_weights=True)
    shelf = store.shelf()
    stored = under_alias(adapter_stored(store.reference("a"), blobs=store.blobs, catalog=store.catalog), shelf)
    found = {one.rule: one for one in check(stored, base_called(f"{ID}@one", shelf)).findings}
    assert "base-weights" in found
    assert store.push(directory, name="a", base=f"{ID}@one").created is False


@pytest.mark.parametrize("is_hashed", [True, False])
def test_it_survives_the_loss_of_the_catalog(store: Registry, first: Path, tmp_path: Path, *, is_hashed: bool) -> None:
    store.add_base(first, name=ID, hash_weights=is_hashed)
    version = store.push(write(tmp_path / "one", lora_tensors()), name="a").version
    assert ("weights_fingerprint" in version.summary.base_model.document()) == is_hashed
    assert store.doctor(deep=True).problems == ()
    store.rebuild()
    again = store.show("a").version
    assert again.summary == version.summary
    assert again.digest == version.digest


def test_a_version_that_says_nothing_is_held_against_what_the_registry_has_now(
    store: Registry, first: Path, second: Path, tmp_path: Path
) -> None:
    """One that was pushed before its base was hashed."""
    store.push(write(tmp_path / "one", lora_tensors()), name="a")
    store.add_base(first, name=ID, hash_weights=True)
    with pytest.raises(RejectedError):
        store.merge(second, ["a@1"], tmp_path / "out", device="cpu")
    store.merge(first, ["a@1"], tmp_path / "out", device="cpu")


def test_another_revision_of_the_base_is_not_recorded_as_the_one_it_was_trained_on(
    store: Registry, first: Path, tmp_path: Path
) -> None:
    store.add_base(first, name=f"{ID}@{'1' * 40}", hash_weights=True)
    pushed = store.push(write(tmp_path / "one", lora_tensors(), revision="2" * 40), name="a")
    assert pushed.version.summary.base_model.weights_fingerprint is None
