"""Scores onto versions: from files, kept with their bytes, or stated; the same file adds nothing twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from registry.connect import Registry
from registry.domain.digest import Digest
from registry.errors import InvalidInputError, NotFoundError, RegistryError
from registry.operations.evaluate import measured
from tests.operations.adapters import tree

LM_EVAL = {
    "results": {"boolq": {"acc,none": 0.75, "acc_stderr,none": 0.02, "f1,none": 0.5}},
    "higher_is_better": {"boolq": {"acc": True}},
}


def results(root: Path, document: object = LM_EVAL, name: str = "more.json") -> Path:
    (root / name).write_text(json.dumps(document))
    return root / name


def scores(registry: Registry, reference: str) -> list[tuple[str | None, str, float]]:
    return [(each.task, each.metric, each.value) for each in registry.evaluations(reference)]


def test_a_file_is_read_and_kept(lived: Registry, tmp_path: Path) -> None:
    path = results(tmp_path)
    version, new = lived.add_evaluations("a@1", path)
    assert (version.reference, new) == ("local/a@1", 2)
    assert sorted(scores(lived, "a@1")) == [("boolq", "acc", 0.75), ("boolq", "f1", 0.5)]
    assert {each.source for each in lived.evaluations("a@1")} == {"more.json"}
    digest = Digest.of(path.read_bytes())
    assert b"".join(lived.blobs.read(digest)) == path.read_bytes()
    assert lived.gc(grace=0).blobs == ()


def test_the_same_file_again_adds_and_writes_nothing(lived: Registry, tmp_path: Path) -> None:
    path = results(tmp_path)
    lived.add_evaluations("a@1", path)
    before = tree(tmp_path / "registry" / "journal"), tree(tmp_path / "registry" / "blobs")
    for again in (path, results(tmp_path, name="renamed.json")):
        assert lived.add_evaluations("a@1", again)[1] == 0
    assert (tree(tmp_path / "registry" / "journal"), tree(tmp_path / "registry" / "blobs")) == before
    assert lived.add_evaluations("b", path)[1] == 2


def test_a_changed_file_adds_its_scores(lived: Registry, tmp_path: Path) -> None:
    lived.add_evaluations("a@1", results(tmp_path))
    changed = {"results": {"boolq": {**LM_EVAL["results"]["boolq"], "acc,none": 0.8}}}
    lived.add_evaluations("a@1", results(tmp_path, changed))
    (version,) = lived.list("a", metrics=["boolq/acc>=0.8"], all_versions=True)
    assert version.reference == "local/a@1"
    assert len([each for each in lived.evaluations("a@1") if each.metric == "acc"]) == 2


def test_what_is_stated_is_a_measurement_each_time(lived: Registry) -> None:
    assert lived.add_evaluations("a@1", "acc=0.5", "acc=0.5", "boolq/acc=0.75±0.01")[1] == 3
    assert scores(lived, "a@1") == [(None, "acc", 0.5), (None, "acc", 0.5), ("boolq", "acc", 0.75)]
    assert lived.evaluations("a@1")[-1].stderr == 0.01


@pytest.mark.parametrize(
    ("text", "direction"), [("acc=1", True), ("eval_loss=1", False), ("latency=1", None)]
)
def test_the_direction_is_common_knowledge_unless_stated(text: str, direction: bool | None) -> None:
    assert measured(text).evaluations[0].higher_is_better is direction
    assert measured(text, higher_is_better=False).evaluations[0].higher_is_better is False


def test_what_is_given_fills_in_what_a_file_leaves_open(tmp_path: Path) -> None:
    given = {"task": "mine", "suite": "ours", "split": "dev", "n": 7, "stderr": 0.1}
    (found,) = measured(results(tmp_path, {"eval_loss": 1.5}, "all_results.json"), **given).evaluations
    assert (found.metric, found.value, found.task, found.suite) == ("loss", 1.5, "mine", "ours")
    assert (found.split, found.n, found.stderr) == ("eval", 7, 0.1)  # the file says which split
    assert {each.task for each in measured(results(tmp_path), task="mine").evaluations} == {"boolq"}


def test_a_file_with_an_equals_sign_is_a_file_where_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results(tmp_path, name="run=3.json")
    for text in (str(path), path):
        assert len(measured(text).evaluations) == 2
    monkeypatch.chdir(tmp_path)
    assert len(measured("./run=3.json").evaluations) == len(measured("run=3.json").evaluations) == 2


def test_a_metric_that_is_longer_than_a_files_name_is_refused(lived: Registry) -> None:
    for named in ("x" * 300, "/".join(["x" * 300, "acc"])):
        with pytest.raises(InvalidInputError):
            lived.add_evaluations("a", f"{named}=1")


def test_all_sources_or_none(lived: Registry, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"results": ')
    before = tree(tmp_path / "registry")
    for sources in ([results(tmp_path), bad], ["acc=0.5", "acc=inf"], [results(tmp_path), "no such file"]):
        with pytest.raises(InvalidInputError):
            lived.add_evaluations("a@1", *sources)
    for reference in ("a@9", "nobody"):
        with pytest.raises(NotFoundError):
            lived.add_evaluations(reference, results(tmp_path))
    assert tree(tmp_path / "registry") == before


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_not_read(lived: Registry, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.json"
    if kind == "link":
        place.symlink_to(results(tmp_path))
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    before = tree(tmp_path / "registry")
    with pytest.raises(RegistryError) as caught:
        lived.add_evaluations("a@1", place)
    assert caught.value.exit_code == 3
    assert tree(tmp_path / "registry") == before


def test_a_yanked_version_can_be_measured_and_a_deleted_cannot(lived: Registry) -> None:
    lived.yank("b", "broken")
    lived.add_evaluations("b@1", "acc=0.5")
    lived.delete("b@1", "because")
    with pytest.raises(NotFoundError):
        lived.add_evaluations("b@1", "acc=0.5")
