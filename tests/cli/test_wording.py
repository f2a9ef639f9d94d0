"""What is typed in more than one way, and small words that have to be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors


@pytest.fixture
def two(adapters: Adapters, write_adapter: WriteAdapter) -> Adapters:
    """Two versions of local/x."""
    for name, value in (("a", 0.1), ("b", 0.2)):
        adapters.json("push", str(write_adapter(name, lora_tensors(value=value))), "--name", "x")
    return adapters


@pytest.mark.parametrize(
    "words", [["x@2", "production"], ["x@v2", "production"], ["x", "production", "v2"], ["x", "production", "@2"]]
)
def test_a_version_may_be_typed_in_every_usual_way(two: Adapters, words: list[str]) -> None:
    assert two.json("alias", "set", *words, "--expect", "none")["version"] == 2
    assert two.json("alias", "set", "x@1", "production", "--expect", "v2")["previous"] == 2
    assert two.json("show", "x@v2")["version"] == 2


@pytest.mark.parametrize("words", [["x", "production"], ["x@1", "production", "2"]])
def test_a_version_is_said_once(two: Adapters, words: list[str]) -> None:
    assert two.refusal("alias", "set", *words)["code"] == "usage"
    assert two.json("alias", "list", "x") == []


@pytest.mark.parametrize("parent", ["x@1=0.5", "x@1*0.5"])
def test_a_parent_s_weight_is_typed_as_in_a_merge_or_with_a_star(
    two: Adapters, write_adapter: WriteAdapter, parent: str
) -> None:
    child = str(write_adapter("child", lora_tensors(value=0.3)))
    two.json("push", child, "--parent", parent, "--parent-kind", "distilled-from")
    (edge,) = two.json("show", "child")["lineage"]
    assert (edge["reference"], edge["weight"], edge["kind"]) == ("local/x@1", 0.5, "distilled-from")
    assert two.json("show", "x@1")["children"] == ["local/child@1"]
    assert [found["reference"] for found in two.json("list", "--parent", "x@1")] == ["local/child@1"]
    assert two.json("list", "--parent", "x@2") == []


def test_a_push_of_a_version_says_where_versions_go(two: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for subject in ("x", "x@2", "local/x"):
        refusal = two.refusal("push", subject)
        assert (refusal["code"], refusal["exit_code"]) == ("not-a-directory", 3)
        assert "--to hf://OWNER/NAME" in refusal["hint"]
    assert two.refusal("push", "nobody")["code"] != "not-a-directory"
    assert two.refusal("push", "no directory")["code"] != "not-a-directory"
    (tmp_path / "x").mkdir()
    assert two.refusal("push", "x")["code"] != "not-a-directory"


@pytest.mark.parametrize("to", ["hf://my-lora", "hf://a/b@main"])
def test_a_destination_has_an_owner_and_no_revision(two: Adapters, to: str) -> None:
    refusal = two.refusal("push", "x", "--to", to)
    assert (refusal["code"], refusal["exit_code"]) == ("invalid-name", 3)
    assert "expected hf://OWNER/NAME" in refusal["message"]


def test_scores_that_differ_in_the_suite_alone_can_be_told_apart(two: Adapters) -> None:
    for version in ("x@1", "x@2"):
        for suite in ("lighteval", "lm-eval"):
            two.json("eval", "add", version, "acc=0.5", "--task", "arc_easy", "--suite", suite)
    said = two("compare", "x@1", "x@2")
    assert said.out.count("arc_easy") == 2
    assert all(suite in said.out for suite in ("suite", "lighteval", "lm-eval"))
    assert "exceeds" not in said.err
    two.json("eval", "add", "x@1", "f1=0.5", "--task", "t", "--stderr", "0.01")
    two.json("eval", "add", "x@2", "f1=0.9", "--task", "t", "--stderr", "0.01")
    assert "* exceeds the combined standard error" in two("compare", "x@1", "x@2").err


def test_scores_that_need_no_suite_show_none(two: Adapters) -> None:
    for version in ("x@1", "x@2"):
        two.json("eval", "add", version, "acc=0.5", "--task", "arc_easy", "--suite", "lm-eval")
    assert "suite" not in two("compare", "x@1", "x@2").out


def test_one_is_one(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    adapters.json("push", str(write_adapter("a")))
    assert adapters("doctor").out.startswith("sound: 1 version, 3 blobs")
    assert adapters("gc", "--grace", "0").out.startswith("removed 0 blobs (0 B) and 0 leftovers")


def test_what_was_not_done_is_not_said(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    adapters.json("push", str(write_adapter("a")))
    assert adapters("unyank", "a").out == "local/a@1 was not yanked\n"
    adapters.json("yank", "a", "--reason", "r")
    assert adapters("unyank", "a@1").out == "local/a@1 is back\n"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert adapters("logout", "http://127.0.0.1:1").out == "http://127.0.0.1:1: no token was kept for it\n"
    assert not (tmp_path / "config").exists()


def test_a_base_s_other_name_says_where_it_comes_from(adapters: Adapters) -> None:
    assert adapters("base", "alias", "acme/mirror", "a/one").out == "acme/mirror is a/one\n"
    assert adapters("base", "alias", "acme/mirror", "a/two").out == "acme/mirror is a/two, and no longer a/one\n"
    assert adapters.json("base", "alias", "acme/mirror", "a/one")["previous"] == "a/two"
    assert adapters("base", "unalias", "acme/mirror").out == "acme/mirror stands for itself again\n"
    assert adapters("base", "unalias", "acme/mirror").out == "acme/mirror stood for itself already\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("my-lara", "local/my-lora"), ("acme/my-lora", "local/my-lora"), ("xyz", None), ("other", None), ("my-bert", None)],
)
def test_only_what_is_near_is_proposed(adapters: Adapters, write_adapter: WriteAdapter, typed: str, meant: str | None) -> None:
    adapters.json("push", str(write_adapter("my-lora")))
    hint = adapters.refusal("show", typed)["hint"]
    assert ("did you mean" in hint) == (meant is not None)
    assert meant is None or meant in hint
