"""Bad input gets one sentence, an exit code by family, and changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from registry.domain.texts import Wording
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter


def test_unknown_references_are_4_and_name_the_nearest(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("my-lora")))
    for arguments in (["show", "my-lara"], ["show", "my-lora@7"], ["show", "my-lora:production"], ["alias", "list", "other"]):
        refusal = adapters.refusal(*arguments)
        assert refusal["exit_code"] == 4, arguments
    assert "my-lora" in adapters.refusal("show", "my-lara")["hint"]


@pytest.mark.parametrize("name", ["-x", "x-", "a--b", "a..b", "ü", "a b", "x" * 97, "a/b/c", "", "a\n", "١"])
def test_names_outside_the_grammar_are_3(adapters: Adapters, write_adapter: WriteAdapter, name: str) -> None:
    refusal = adapters.refusal("push", str(write_adapter("my-lora")), f"--name={name}")
    assert (refusal["exit_code"], refusal["code"]) == (3, "invalid-name")
    assert not adapters.registry.exists()


@pytest.mark.parametrize("alias", ["v1", "V12", "a.b", "abcdef0", "0123456789", "sha256:x"])
def test_aliases_that_could_be_something_else_are_3(adapters: Adapters, write_adapter: WriteAdapter, alias: str) -> None:
    refusal = adapters.refusal("push", str(write_adapter("my-lora")), "--alias", alias)
    assert refusal["exit_code"] == 3
    assert not adapters.registry.exists()


def test_a_stale_expectation_is_5_and_moves_nothing(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("my-lora")), "--alias", "production")
    for expected in ("none", "2"):
        assert adapters.refusal("alias", "set", "my-lora", "production", "1", "--expect", expected)["code"] == "alias-moved"
    assert len(adapters.json("alias", "history", "my-lora", "production")) == 1


def test_pull_into_an_occupied_directory_is_5(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    adapters.json("push", str(write_adapter("my-lora")))
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine").write_text("mine")
    assert adapters.refusal("pull", "my-lora", "-o", str(occupied))["exit_code"] == 5
    assert os.listdir(occupied) == ["mine"]
    empty = tmp_path / "empty"
    empty.mkdir()
    adapters.json("pull", "my-lora", "-o", str(empty))


def test_a_name_that_leaves_nothing_is_refused_with_a_proposal(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    refusal = adapters.refusal("push", str(write_adapter("日本語")))
    assert refusal["code"] == "invalid-name"
    assert "--name" in refusal["hint"]
    assert adapters.json("push", str(write_adapter("Mon Modèle (v2)")))["adapter"] == "local/mon-modele-v2"


def test_what_a_stranger_wrote_does_not_move_the_cursor(
    adapters: Adapters, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can write it now; a registry may have it from before that."""
    written = ("push", str(write_adapter("my-lora")), "--note", "\x1b]0;owned\x07\x1b[2J")
    assert adapters.refusal(*written)["exit_code"] == 3
    with monkeypatch.context() as before:
        before.setattr(Wording, "checked", lambda _self, text: text)
        adapters.json(*written)
    assert "\x1b" not in adapters("show", "my-lora").out
    assert adapters.json("show", "my-lora")["note"] == "\x1b]0;owned\x07\x1b[2J"


def test_a_bad_results_file_writes_nothing(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"results": {"t": {"acc,none": 0.5}}})[:-9])
    refusal = adapters.refusal("push", str(write_adapter("my-lora")), "--eval", str(results))
    assert refusal["exit_code"] == 3
    assert "line 1" in refusal["message"]
    assert not adapters.registry.exists()


def test_wrong_usage_is_2(adapters: Adapters) -> None:
    assert adapters("push").code == 2
    assert adapters("list", "--nope").code == 2
    assert adapters("eval", "add", "x").code == 2


def test_the_hint_for_an_adapter_without_a_current_version_names_one_that_exists(
    adapters: Adapters, write_adapter: WriteAdapter
) -> None:
    directory = write_adapter("my-lora")
    adapters.json("push", str(directory))
    adapters.json("yank", "my-lora", "--reason", "wrong split")
    assert "my-lora@1" in adapters.refusal("show", "my-lora")["hint"]
    adapters.json("delete", "my-lora@1", "--reason", "wrong split")
    assert "@1" not in adapters.refusal("show", "my-lora")["hint"]


def test_a_name_filter_that_no_name_can_contain_is_3(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("my-lora")))
    assert adapters.refusal("list", "my\x1blora")["code"] == "invalid-value"
