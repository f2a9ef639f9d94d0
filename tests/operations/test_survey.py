"""Every adapter of a registry against one base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.checks.profile import find_profile, with_rank_cap
from registry.connect import Registry
from registry.domain.base_model import BaseModelId
from registry.errors import CorruptionError, InvalidInputError, RejectedError, UnavailableError
from registry.operations import survey as survey_room
from registry.operations.bases import CheckedBase, base_called
from registry.operations.check import Answer
from registry.operations.survey import survey
from tests.conftest import floats, lora_tensors, safetensors_bytes
from tests.operations.adapters import blob_path, write

OTHER = "Qwen/Qwen2.5-0.5B"


@pytest.fixture
def full(store: Registry, tmp_path: Path) -> Registry:
    """a to e, two versions of each, of two bases; e's newest is yanked."""
    for name, base in zip("abcde", ["gpt2", OTHER, "openai-community/gpt2", OTHER, "gpt2"], strict=True):
        for number in (1, 2):
            tensors = lora_tensors(value=number / 4)
            store.push(write(tmp_path / f"{name}{number}", tensors, base_model_name_or_path=base), name=name)
    store.yank("e@2", "wrong")
    return store


def a_base(directory: Path, *, rows: int) -> Path:
    """Its q_proj reads three numbers and puts out so many as it has rows."""
    directory.mkdir()
    name = "model.layers.0.self_attn.q_proj.weight"
    (directory / "model.safetensors").write_bytes(
        safetensors_bytes({name: ("F32", (rows, 3), floats(0.5, count=3 * rows))})
    )
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return directory


def surveyed(registry: Registry, *about: object) -> list[str]:
    return [verdict.subject for verdict in survey(*about, blobs=registry.blobs, catalog=registry.catalog)]  # type: ignore[arg-type]


@pytest.mark.parametrize("page", [1, 2, 3, 5, 500])
def test_every_adapter_once_in_its_newest_version_not_yanked(
    full: Registry, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(survey_room, "_PAGE", page)
    assert surveyed(full) == ["local/a@2", "local/b@2", "local/c@2", "local/d@2", "local/e@1"]


def test_of_a_named_base_those_that_were_trained_on_it_at_any_revision(full: Registry) -> None:
    assert surveyed(full, base_called("gpt2@some-revision")) == ["local/a@2", "local/c@2", "local/e@1"]
    assert surveyed(full, base_called(f"hf://{OTHER.lower()}")) == ["local/b@2", "local/d@2"]
    assert surveyed(full, base_called("nobody/nothing")) == []


def test_of_a_directory_those_that_something_ties_to_it(full: Registry, tmp_path: Path) -> None:
    """By its name, by a recorded path, by the shapes of a push, by a base that the registry keeps; nobody else."""
    assert surveyed(full, CheckedBase(BaseModelId(None, raw="./somewhere"))) == []
    assert surveyed(full, CheckedBase(BaseModelId(None, raw="./bases/gpt2"))) == ["local/a@2", "local/c@2", "local/e@1"]
    base = a_base(tmp_path / "mine", rows=3)
    assert surveyed(full, base_called(str(base))) == []
    full.push(write(tmp_path / "local", lora_tensors(value=3), base_model_name_or_path=str(base)), name="local")
    assert surveyed(full, base_called(str(base))) == ["local/local@1"]
    full.add_base(base, name=OTHER)
    assert surveyed(full, base_called(str(base))) == ["local/b@2", "local/d@2", "local/local@1"]
    again = a_base(tmp_path / "again", rows=3)  # the same shapes, which the push of `local` recorded
    assert surveyed(full, base_called(str(again))) == ["local/b@2", "local/d@2", "local/local@1"]


def test_what_a_base_is_called_stops_nobody(full: Registry, tmp_path: Path) -> None:
    base = a_base(tmp_path / "mine", rows=3)
    full.push(write(tmp_path / "odd", lora_tensors(value=3), base_model_name_or_path="/no/\0path"), name="odd")
    assert surveyed(full, base_called(str(base))) == []
    assert surveyed(full, CheckedBase(BaseModelId(None, raw="./bases/gpt2"))) == ["local/a@2", "local/c@2", "local/e@1"]


def test_the_registry_may_be_empty(store: Registry) -> None:
    assert surveyed(store) == []


def test_a_damaged_one_has_a_verdict_and_stops_nobody(full: Registry, tmp_path: Path) -> None:
    lost = blob_path(full, tmp_path / "registry", "b@2")
    cut = blob_path(full, tmp_path / "registry", "d@2", "adapter_config.json")
    lost.unlink()
    cut.chmod(0o600)
    cut.write_bytes(b"{")
    found = {one.subject: one for one in survey(None, find_profile("peft"), blobs=full.blobs, catalog=full.catalog)}
    assert [one.answer for one in found.values()] == [Answer.FITS, Answer.CANNOT_CHECK] * 2 + [Answer.FITS]
    damaged = found["local/b@2"]
    assert damaged.failure is not None
    assert issubclass(damaged.failure, CorruptionError)
    assert [(finding.rule, finding.severity.value) for finding in damaged.findings] == [("missing-blob", "error")]
    assert damaged.document()["accounted"] == {"tensors": 0, "matched": None}
    assert found["local/d@2"].failure is not None


def test_the_verdicts_are_those_of_a_check(full: Registry, tmp_path: Path) -> None:
    base = a_base(tmp_path / "gpt2", rows=4)
    advanced: list[int] = []
    verdicts = list(
        survey(base_called(str(base)), blobs=full.blobs, catalog=full.catalog, allow=["x"], progress=advanced.append)
    )
    assert {one.failure for one in verdicts} == {RejectedError}
    assert all("wrong-shape" in [finding.rule for finding in one.findings] for one in verdicts)
    assert len(advanced) == 3
    assert min(advanced) > 0
    allowed = survey(base_called(str(base)), blobs=full.blobs, catalog=full.catalog, allow=["wrong-shape"])
    assert {one.failure for one in allowed} == {None}
    capped = with_rank_cap(find_profile("vllm==0.8.0"), 1)
    assert {one.failure for one in survey(None, capped, blobs=full.blobs, catalog=full.catalog)} == {RejectedError}
    unknown = survey(base_called("gpt2"), blobs=full.blobs, catalog=full.catalog)
    assert {one.failure for one in unknown} == {UnavailableError}


def test_all_are_checked_as_each_is(full: Registry, tmp_path: Path) -> None:
    base = str(a_base(tmp_path / "gpt2", rows=4))
    verdicts = {one.subject: one for one in full.check_all(base=base, engine="vllm", allow=["wrong-shape"])}
    assert set(verdicts) == {"local/a@2", "local/c@2", "local/e@1"}
    for reference, verdict in verdicts.items():
        again = full.check(reference, base=base, engine="vllm", allow=["wrong-shape"])
        assert again.document() == verdict.document()
        assert (again.profile or "").startswith("vllm")
    assert full.check(tmp_path / "a2", base=base).failure is RejectedError
    for nothing in (lambda: full.check("a"), lambda: list(full.check_all())):
        with pytest.raises(InvalidInputError):
            nothing()


def test_nobody_of_a_base_that_nobody_knows_is_no_answer(full: Registry, tmp_path: Path) -> None:
    for base, code in (("nobody/nothing", "base-shapes-unknown"), (str(a_base(tmp_path / "mine", rows=3)), "base-unnamed")):
        with pytest.raises(UnavailableError) as caught:
            list(full.check_all(base=base))
        assert caught.value.code == code
