"""Bases that a registry knows: pushes are held against them, under every name they have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry.connect import Registry, connect
from registry.domain.base_model import parse_base_model_spec
from registry.domain.finding import Finding
from registry.errors import (
    ConflictError,
    CorruptionError,
    InvalidNameError,
    MisfitError,
    NotFoundError,
    UnavailableError,
)
from registry.operations.bases import base_called
from registry.operations.check import adapter_stored, check
from registry.operations.know_base import know_base
from tests.conftest import WriteAdapter, floats, lora_tensors, safetensors_bytes

ID = "openai-community/gpt2"  # what the adapters of these tests say
Q = "model.layers.0.self_attn.q_proj"
WriteBase = Callable[..., Path]


@pytest.fixture
def write_base(tmp_path: Path) -> WriteBase:
    """``write_base(name, width=3)``: a llama of one projection."""

    def write(name: str = "base", *, width: int = 3, value: float = 0.5) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        tensors = {f"{Q}.weight": ("F32", (width, width), floats(value, count=width * width))}
        (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return write


def rules(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in findings]


def test_a_push_without_a_known_base_says_so(store: Registry, write_adapter: WriteAdapter) -> None:
    pushed = store.push(write_adapter())
    assert rules(pushed.findings) == ["base-not-checked"]
    assert pushed.findings[0].message.startswith("not checked against a base: ")
    assert store.show("my-lora").version.summary.base_model.fingerprint is None


def test_a_push_that_fits_records_the_fingerprint(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase
) -> None:
    base = write_base()
    stored, spec, created = store.add_base(base, name=ID)
    assert created
    assert (stored.id.id, spec.fingerprint) == (ID, know_base(base).fingerprint)
    pushed = store.push(write_adapter())
    assert rules(pushed.findings) == []
    assert store.show("my-lora").document()["base_model"]["fingerprint"] == spec.fingerprint  # type: ignore[index]


@pytest.mark.parametrize("how", ["stored", "stored, no revision said", "--base DIR", "the directory it was trained from"])
def test_a_push_that_does_not_fit_is_refused_and_nothing_is_written(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase, tmp_path: Path, how: str
) -> None:
    base = write_base(width=5)
    config: dict[str, object] = {}
    if how == "stored":
        store.add_base(base, name=ID)
    elif how == "stored, no revision said":
        store.add_base(base, name=f"{ID}@v2")
    elif how == "the directory it was trained from":
        config["base_model_name_or_path"] = str(base)
    before = sorted(path for path in (tmp_path / "registry").rglob("*"))
    with pytest.raises(MisfitError, match="does not fit its base") as refused:
        store.push(write_adapter("my-lora", None, **config), base=str(base) if how == "--base DIR" else None)
    assert (refused.value.code, refused.value.exit_code) == ("wrong-shape", 6)
    assert "--allow wrong-shape" in (refused.value.hint or "")
    assert sorted(path for path in (tmp_path / "registry").rglob("*")) == before


def test_what_is_allowed_is_stored_with_its_finding(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase
) -> None:
    store.add_base(write_base(width=5), name=ID)
    pushed = store.push(write_adapter(), allow=["wrong-shape"])
    assert set(rules(pushed.findings)) == {"wrong-shape"}
    assert set(rules(store.show("my-lora").version.findings)) == {"wrong-shape"}


def test_findings_about_another_base_are_not_the_adapters_own(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase
) -> None:
    """A version that was let in against one base fits another."""
    store.add_base(write_base(width=5), name=ID)
    store.push(write_adapter(), allow=["wrong-shape"])
    adapter = adapter_stored(store.reference("my-lora"), blobs=store.blobs, catalog=store.catalog)
    verdict = check(adapter, base_called(str(write_base("right"))))
    assert verdict.failure is None
    assert "base-fingerprint" in rules(verdict.findings)


def test_bulk_pushes_are_checked_too(store: Registry, write_adapter: WriteAdapter, write_base: WriteBase) -> None:
    store.add_base(write_base(width=5), name=ID)
    good = write_adapter("good", lora_tensors(width=5))
    results = list(store.push_many([write_adapter("bad"), good]))
    assert sorted(type(result).__name__ for result in results) == ["Failed", "Published"]


def test_the_newest_of_two_revisions_is_meant_without_one(store: Registry, write_base: WriteBase) -> None:
    for revision, width in (("v1", 3), ("v2", 5)):
        store.add_base(write_base(revision, width=width), name=f"{ID}@{revision}")
    assert store.base(ID)[0].id.revision == "v2"
    assert store.base(f"{ID}@v1")[0].id.revision == "v1"
    found = base_called(f"{ID}@v1", store.shelf())
    assert found.spec is not None
    assert found.spec.modules[0].shape == (3, 3)
    with pytest.raises(NotFoundError, match="no base"):
        store.base(f"{ID}@v3")


def test_the_same_again_changes_nothing_and_another_takes_its_place(store: Registry, write_base: WriteBase) -> None:
    assert store.add_base(write_base(), name=ID)[2]
    events = len(store.log())
    assert not store.add_base(write_base("again"), name=ID)[2]
    assert len(store.log()) == events
    assert store.add_base(write_base("other", width=5), name=ID)[2]
    assert [base.id.id for base in store.bases()] == [ID]


def test_weights_tell_bases_of_equal_shapes_apart(store: Registry, write_base: WriteBase) -> None:
    one = store.add_base(write_base("one"), name="org/one", hash_weights=True)[1]
    two = store.add_base(write_base("two", value=0.25), name="org/two", hash_weights=True)[1]
    assert one.fingerprint == two.fingerprint
    assert one.weights_fingerprint != two.weights_fingerprint


def test_an_alias_of_the_registry_makes_two_names_one_base(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase
) -> None:
    store.push(write_adapter("before", None, base_model_name_or_path="acme/mirror"))
    store.add_base(write_base(), name=ID)
    assert store.alias_base("acme/mirror", "gpt2")  # one name of the built-in table
    assert not store.alias_base("Acme/Mirror", ID)
    after = lora_tensors(value=0.25)
    pushed = store.push(write_adapter("after", after, base_model_name_or_path="acme/mirror"))
    assert rules(pushed.findings) == []
    for name in (ID, "acme/mirror", "ACME/MIRROR"):
        assert [str(version.adapter) for version in store.list(base=name)] == ["local/after", "local/before"]
        assert [str(version.adapter) for version in store.list(base=name, sort="created")] == ["local/after", "local/before"]
    with pytest.raises(ConflictError):
        store.alias_base(ID, "acme/mirror")
    assert store.alias_base("acme/mirror", None)
    assert store.list(base=ID) == []
    assert not store.alias_base("acme/mirror", None)


def test_they_survive_collection_and_rebuild(store: Registry, write_base: WriteBase, tmp_path: Path) -> None:
    store.add_base(write_base(), name=ID)
    store.alias_base("acme/mirror", ID)
    assert store.gc(grace=0).blobs == ()
    (tmp_path / "registry" / "catalog.db").unlink()
    again = connect(tmp_path / "registry")
    again.rebuild()
    again = connect(tmp_path / "registry")
    assert again.base("acme/mirror")[1] == store.base(ID)[1]
    assert again.doctor(deep=True).problems == ()


def test_one_that_was_replaced_is_collected(store: Registry, write_base: WriteBase) -> None:
    stored, _, _ = store.add_base(write_base(), name=ID)
    store.add_base(write_base("other", width=5), name=ID)
    assert store.gc(grace=0).blobs == (stored.digest,)
    assert store.doctor(deep=True).problems == ()


def test_damage_is_found_and_named(store: Registry, write_base: WriteBase, tmp_path: Path) -> None:
    stored, _, _ = store.add_base(write_base(), name=ID)
    digest = stored.digest.removeprefix("sha256:")
    path = tmp_path / "registry" / "blobs" / "sha256" / digest[:2] / digest
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"llama", b"lama!"))
    path.chmod(0o444)
    (problem,) = store.doctor(deep=True).problems
    assert (problem.blob, problem.owners) == (stored.digest, (f"base {ID}",))
    with pytest.raises(CorruptionError, match=ID):
        store.base(ID)


def test_a_directory_without_a_name_of_its_own_needs_one(store: Registry, write_base: WriteBase, tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError, match="base model") as refused:
        store.add_base(write_base())
    assert "--name" in (refused.value.hint or "")
    assert not (tmp_path / "registry").exists()


def test_a_snapshot_in_the_hubs_cache_has_one(store: Registry, write_base: WriteBase, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.move(write_base(), snapshot)
    stored, _, _ = store.add_base(snapshot)
    assert (stored.id.id, stored.id.revision) == ("org/name", "a" * 40)


def test_a_description_comes_back_as_it_was(write_base: WriteBase) -> None:
    spec = replace(know_base(write_base(), hash_weights=True), architectures=("A", "B"), vocabulary=7)
    assert parse_base_model_spec(spec.canonical_bytes) == spec
    for damaged in (b"", b"[]", b"{}", spec.canonical_bytes.replace(b'"linear"', b'"lineal"')):
        with pytest.raises(CorruptionError):
            parse_base_model_spec(damaged)


def test_without_the_hub_it_says_what_is_missing(
    store: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UnavailableError) as refused:
        store.add_base("org/name")
    assert (refused.value.code, refused.value.exit_code) == ("hub-missing", 8)
    assert not (tmp_path / "registry").exists()


def test_a_revision_that_the_adapter_does_not_name_refuses_nothing(
    store: Registry, write_adapter: WriteAdapter, write_base: WriteBase
) -> None:
    store.add_base(write_base("new", width=5), name=f"{ID}@new")
    pushed = store.push(write_adapter("my-lora", None, revision="old"))
    assert "error" not in {finding.severity.value for finding in pushed.findings}
    said = [finding.message for finding in pushed.findings if finding.rule == "wrong-shape"]
    assert said
    assert all(message.startswith(f"held against {ID}@new") for message in said)
    with pytest.raises(MisfitError):
        store.push(write_adapter("other"))
    store.add_base(write_base("plain"), name=ID)
    assert store.push(write_adapter("third", lora_tensors(value=0.25))).findings == ()


def test_a_copy_does_not_take_the_place_of_the_base(store: Registry, write_base: WriteBase) -> None:
    store.add_base(write_base(), name="meta-llama/Llama-3.1-8B-Instruct")
    with pytest.raises(ConflictError, match="is a copy of"):
        store.add_base(write_base("copy", width=5), name="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit")
    assert store.base("meta-llama/Llama-3.1-8B-Instruct")[1].modules[0].shape == (3, 3)
