"""Pushing: all or nothing, once or never, and nothing is acknowledged that is not there."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.blobs.filesystem import FilesystemBlobs
from registry.catalog.sql import SqlCatalog
from registry.connect import Failed, Registry, connect
from registry.domain.digest import Digest
from registry.errors import (
    AliasMovedError,
    ConflictError,
    InvalidInputError,
    InvalidNameError,
    InvalidValueError,
    RegistryError,
)
from registry.operations.publish import Published
from tests.conftest import lora_tensors
from tests.operations.adapters import blob_path, tree, write


def references(found: list[Published | Failed]) -> list[str]:
    return [each.version.reference if isinstance(each, Published) else each.error.code for each in found]


def test_the_same_again_is_the_same_version_and_writes_nothing(lived: Registry, tmp_path: Path) -> None:
    before = tree(tmp_path / "registry")
    for again in (lived, connect(tmp_path / "registry")):
        pushed = again.push(tmp_path / "one", name="A", note="again")
        assert (pushed.created, pushed.version.reference) == (False, "local/a@1")
    assert tree(tmp_path / "registry") == before


def test_the_same_again_may_bring_labels(lived: Registry, tmp_path: Path) -> None:
    pushed = lived.push(tmp_path / "two", name="a", alias="production", tags={"k": "w"}, evaluations=["f1=0.5"])
    assert pushed.created is False
    shown = lived.show("a@2")
    assert (shown.version.aliases, dict(shown.version.tags), len(shown.evaluations)) == (("production",), {"k": "w"}, 2)
    before = tree(tmp_path / "registry" / "blobs")
    lived.push(tmp_path / "two", name="a", alias="production", tags={"k": "w"}, evaluations=[tmp_path / "results.json"])
    assert tree(tmp_path / "registry" / "blobs") == before


def test_under_another_name_it_is_another_version_of_the_same_bytes(lived: Registry, tmp_path: Path) -> None:
    before = tree(tmp_path / "registry" / "blobs")
    pushed = lived.push(tmp_path / "one", name="team/other")
    assert (pushed.created, pushed.version.reference) == (True, "team/other@1")
    assert pushed.version.digest == lived.show("a@1").version.digest
    assert tree(tmp_path / "registry" / "blobs") == before


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["README.md", "readme.md"], "clashing-paths"),
        (["tokenizer.json", "Tokenizer.json"], "clashing-paths"),
        ([".eval_results/a\\b.yaml"], "invalid-path"),
        ([".eval_results/a\nb.yaml"], "invalid-path"),
        (["LICENSE\x01"], "invalid-path"),
    ],
)
def test_what_could_not_be_read_again_is_not_stored(
    lived: Registry, tmp_path: Path, names: list[str], code: str
) -> None:
    folder, before = write(tmp_path / "x", lora_tensors(value=0.75)), tree(tmp_path / "registry")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"of {name}")
    with pytest.raises(InvalidInputError) as caught:
        lived.push(folder)
    assert (caught.value.code, caught.value.exit_code) == (code, 3)
    assert tree(tmp_path / "registry") == before


@pytest.mark.parametrize("kind", ["\x1b[31m", "a\nb", "\u202e", "x" * 61])
def test_a_kind_of_lineage_that_could_not_be_read_again_is_not_stored(
    lived: Registry, tmp_path: Path, kind: str
) -> None:
    folder, before = write(tmp_path / "x", lora_tensors(value=0.75)), tree(tmp_path / "registry")
    with pytest.raises(InvalidNameError):
        lived.push(folder, parents=["a@1"], parent_kind=kind)
    assert tree(tmp_path / "registry") == before


def test_a_changed_config_shares_the_weights(lived: Registry, tmp_path: Path) -> None:
    blobs = len(list(lived.blobs.digests()))
    lived.push(write(tmp_path / "x", lora_alpha=32), name="a")
    assert len(list(lived.blobs.digests())) == blobs + 2  # its config and its manifest
    weights = {blob_path(lived, tmp_path / "registry", f"a@{number}", "adapter_model.safetensors") for number in (1, 2, 3)}
    assert len(weights) == 1


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"alias": "v1"}, InvalidNameError),
        ({"alias": ["production", "a.b"]}, InvalidNameError),
        ({"tags": {"k\n": "v"}}, InvalidNameError),
        ({"tags": {"k": ""}}, InvalidNameError),
        ({"name": "a--b"}, InvalidNameError),
        ({"name": "a/b/c"}, InvalidNameError),
        ({"evaluations": ["acc=nan"]}, InvalidInputError),
        ({"evaluations": ["nowhere.json"]}, InvalidInputError),
        ({"parents": ["b@7"]}, RegistryError),
        ({"parents": ["b*much"]}, InvalidNameError),
        ({"parents": [("b", math.nan)]}, InvalidInputError),
        ({"base": "/data/x"}, InvalidInputError),
        ({"base": "a--b"}, InvalidNameError),
        ({"adapter": "nowhere"}, InvalidInputError),
    ],
)
def test_whatever_is_refused_nothing_is_written(
    lived: Registry, tmp_path: Path, options: dict[str, Any], kind: type[RegistryError]
) -> None:
    before = tree(tmp_path / "registry")
    with pytest.raises(kind):
        lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), **options)
    assert tree(tmp_path / "registry") == before


def test_what_the_catalog_itself_refuses_leaves_no_bytes(lived: Registry, tmp_path: Path) -> None:
    digests, entries = sorted(lived.blobs.digests()), len(lived.log())
    with pytest.raises(InvalidInputError):
        lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), note="\udcff")
    assert (sorted(lived.blobs.digests()), len(lived.log())) == (digests, entries)
    assert lived.doctor(deep=True).problems == ()


def test_a_failure_at_the_last_moment_takes_back_what_was_stored(
    lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry.catalog.journal import FileJournal

    digests = sorted(lived.blobs.digests())
    entries = len(lived.log())

    def refuse(*_arguments: object) -> None:
        raise KeyboardInterrupt

    directory = write(tmp_path / "x", lora_tensors(value=0.75))
    with monkeypatch.context() as patch:
        patch.setattr(FileJournal, "write", refuse)
        with pytest.raises(KeyboardInterrupt):
            lived.push(directory, alias="production")
    assert sorted(lived.blobs.digests()) == digests
    assert len(lived.log()) == entries
    assert lived.push(directory).created


def test_bytes_that_change_between_looking_and_storing_are_refused(
    lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path / "x", lora_tensors(value=0.75))
    digests = sorted(lived.blobs.digests())
    put = FilesystemBlobs.put

    def meddled(self: FilesystemBlobs, digest: Digest, chunks: Any) -> None:
        place = directory / "adapter_model.safetensors"
        data = place.read_bytes()
        place.write_bytes(data[:-1] + b"!")
        put(self, digest, chunks)

    monkeypatch.setattr(FilesystemBlobs, "put", meddled)
    with pytest.raises(ConflictError) as caught:
        lived.push(directory)
    assert caught.value.code == "changed-while-pushed"
    assert sorted(lived.blobs.digests()) == digests


def test_a_collector_between_storing_and_entering_is_made_good(
    lived: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs without a row are fair game for a collector without grace; the push looks again before it commits."""
    writing = SqlCatalog.writing
    collector = connect(tmp_path / "registry")
    collected: list[int] = []

    def late(self: SqlCatalog) -> Any:
        if self is lived.catalog and not collected:
            collected.append(len(collector.gc(grace=0).blobs))
        return writing(self)

    monkeypatch.setattr(SqlCatalog, "writing", late)
    lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), alias="production")
    assert collected == [2]  # weights and manifest; the config is a@1's
    assert lived.doctor(deep=True).problems == ()


def test_damage_is_made_good_by_pushing_again(lived: Registry, tmp_path: Path) -> None:
    blob_path(lived, tmp_path / "registry", "a@1", "adapter_model.safetensors").unlink()
    cut = blob_path(lived, tmp_path / "registry", "a@1", "adapter_config.json")
    cut.chmod(0o644)
    cut.write_bytes(b"{")
    before = len(lived.log())
    assert lived.push(tmp_path / "one", name="a").created is False
    assert lived.doctor(deep=True).problems == ()
    assert len(lived.log()) == before


def test_many_are_pushed_and_what_is_refused_stops_nobody(lived: Registry, tmp_path: Path) -> None:
    good = [write(tmp_path / "many" / f"good-{count}", lora_tensors(value=count + 1.0)) for count in range(4)]
    bad = [write(tmp_path / "many" / "bad-rank", r=3), tmp_path / "many" / "nothing", write(tmp_path / "many" / "日本")]
    records = [
        good[0],
        {"directory": bad[0]},
        {"directory": good[1], "name": "team/b", "alias": "production", "tags": {"k": "v"}},
        bad[1],
        {"directory": good[0], "name": "orphan", "parents": ["nobody@1"]},
        {"directory": good[2], "alias": ["production", "canary"]},
        bad[2],
        {"directory": good[3], "name": "a--b"},
        good[0],
    ]
    found = list(lived.push_many(records, batch=3))
    assert sorted(references(found)) == sorted(
        ["local/good-0@1", "rank-mismatch", "team/b@1", "no-directory", "local/good-2@1", "invalid-name", "invalid-name"]
        + ["local/good-0@1", "unknown-adapter"]
    )
    assert [each.directory.name for each in found if isinstance(each, Failed)] == [
        "bad-rank", "nothing", "good-0", "日本", "good-3"
    ]  # fmt: skip
    assert [each.created for each in found if isinstance(each, Published)].count(False) == 1
    assert lived.aliases("good-2") == {"canary": 1, "production": 1}
    assert lived.doctor(deep=True).problems == ()


def test_a_batch_is_one_transaction(lived: Registry, tmp_path: Path) -> None:
    segments = len(list((tmp_path / "registry" / "journal").rglob("*.jsonl")))
    many = [write(tmp_path / "many" / f"x{count}", lora_tensors(value=count + 1.0)) for count in range(3)]
    list(lived.push_many(many))
    assert len(list((tmp_path / "registry" / "journal").rglob("*.jsonl"))) == segments + 1


def test_writers_at_once_each_get_a_number(lived: Registry, tmp_path: Path) -> None:
    contents = [write(tmp_path / f"x{count}", lora_tensors(value=count + 1.0)) for count in range(4)]
    together = threading.Barrier(8)

    def push(place: Path) -> tuple[int, bool]:
        registry = connect(tmp_path / "registry")
        together.wait()
        pushed = registry.push(place, name="a")
        return pushed.version.number, pushed.created

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(push, contents * 2))
    assert sorted(number for number, created in found if created) == [3, 4, 5, 6]
    assert {number for number, created in found if not created} == {3, 4, 5, 6}
    assert lived.doctor(deep=True).problems == ()


def test_of_those_who_move_an_alias_from_the_same_place_one_wins(lived: Registry, tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def promote(_count: int) -> str:
        registry = connect(tmp_path / "registry")
        together.wait()
        try:
            registry.set_alias("a", "production", 2, expected=1)
        except AliasMovedError as error:
            return f"moved to {error.actual}"
        return "won"

    with ThreadPoolExecutor(6) as pool:
        found = sorted(pool.map(promote, range(6)))
    assert found == ["moved to 2"] * 5 + ["won"]
    assert len(lived.alias_history("a", "production")) == 2


@pytest.mark.parametrize("weight", [np.float32(0.5), np.float64(0.5), Fraction(1, 2), 0.5])
def test_a_weight_is_any_finite_number(lived: Registry, tmp_path: Path, weight: float) -> None:
    lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), parents=[("a@1", weight)])
    assert [edge.weight for edge in lived.show("x").manifest.lineage] == [0.5]


@pytest.mark.parametrize("weight", ["0.5", float("nan"), 10**400, [1.0]])
def test_what_is_no_finite_number_is_no_weight(lived: Registry, tmp_path: Path, weight: Any) -> None:
    with pytest.raises(InvalidValueError):
        lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), parents=[("a@1", weight)])


@pytest.mark.parametrize("number", ["2", True, None, 2.0])
def test_an_alias_points_at_a_number(lived: Registry, number: Any) -> None:
    before = lived.aliases("a")
    with pytest.raises(InvalidValueError):
        lived.set_alias("a", "production", number)
    assert lived.aliases("a") == before
    lived.set_alias("a", "production", np.int64(2))  # type: ignore[arg-type]
    assert lived.aliases("a") == {**before, "production": 2}


def test_one_of_many_with_what_no_push_takes_fails_alone(lived: Registry, tmp_path: Path) -> None:
    good = write(tmp_path / "good", lora_tensors(value=0.75))
    pushed = lived.push_many([{"directory": good, "alow": []}, {"name": "x"}, {"directory": good}])
    assert references(list(pushed)) == ["invalid-input", "invalid-input", "local/good@1"]


def test_one_of_many_that_the_catalog_refuses_fails_alone(lived: Registry, tmp_path: Path) -> None:
    folders = [write(tmp_path / f"good-{number}", lora_tensors(value=0.75 + number)) for number in range(3)]
    records = [{"directory": folder, "alias": alias} for folder, alias in zip(folders, ("x", "main", "y"), strict=True)]
    assert references(list(lived.push_many(records))) == ["local/good-0@1", "invalid-name", "local/good-2@1"]


def test_lineage_is_kept_by_digest(lived: Registry, tmp_path: Path) -> None:
    lived.push(write(tmp_path / "x", lora_tensors(value=0.75)), parents=[("a@1", 0.5), "b"], parent_kind="combined-from")
    edges = lived.show("x").manifest.lineage
    assert [(edge.parent, edge.kind, edge.weight, edge.reference) for edge in edges] == [
        (lived.show("a@1").version.digest, "combined-from", 0.5, "local/a@1"),
        (lived.show("b").version.digest, "combined-from", None, "local/b@1"),
    ]
