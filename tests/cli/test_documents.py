"""The JSON that other programs rely on: exact keys, exact types."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

SUMMARY = {
    "adapter", "version", "digest", "reference", "aliases", "tags", "yanked", "yank_reason", "created_at", "note",
    "base_model", "peft_type", "variant", "task_type", "rank", "alpha", "scaling", "target_modules", "layers", "dtype",
    "parameters", "bytes", "tensor_identity", "base_change", "score",
}  # fmt: skip
SHOWN = SUMMARY | {
    "ranks", "scalings", "alphas", "modules", "extra_modules", "absent_targets", "peft_version", "training", "files",
    "evaluations", "lineage", "children", "findings",
}  # fmt: skip


def test_push_answers_what_was_made(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    pushed = adapters.json("push", str(write_adapter("my-lora")))
    assert set(pushed) == {"adapter", "version", "digest", "reference", "created", "findings"}
    assert (pushed["adapter"], pushed["version"], pushed["reference"]) == ("local/my-lora", 1, "local/my-lora@1")
    assert pushed["created"] is True
    assert pushed["digest"].startswith("sha256:")


def test_the_same_content_again_is_the_same_version(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    directory = str(write_adapter("my-lora"))
    first = adapters.json("push", directory)
    assert adapters.json("push", directory) == {**first, "created": False}


def test_show_has_every_key(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    tensors = lora_tensors("model.layers.0.self_attn.q_proj", "model.layers.3.self_attn.q_proj")
    adapters.json("push", str(write_adapter("my-lora", tensors)), "--tag", "a=b", "--alias", "production")
    adapters.json("eval", "add", "my-lora", "acc=0.5", "--task", "t")
    shown = adapters.json("show", "my-lora")
    assert set(shown) == SHOWN
    path = "model.layers.0.self_attn.q_proj"
    assert shown["ranks"] == {path: 2, path.replace("0", "3"): 2}
    assert shown["scalings"][path] == 2.0
    assert (shown["rank"], shown["alpha"], shown["scaling"]) == (2, 4, 2)
    assert shown["target_modules"] == ["q_proj"]
    assert shown["layers"] == [0, 3]
    assert shown["aliases"] == ["production"]
    assert shown["tags"] == {"a": "b"}
    assert shown["yanked"] is False
    assert shown["base_model"] == {
        "id": "openai-community/gpt2", "revision": None, "raw": "openai-community/gpt2", "fingerprint": None,
    }  # fmt: skip
    assert {entry["path"] for entry in shown["files"]} == {"adapter_config.json", "adapter_model.safetensors"}
    assert set(shown["files"][0]) == {"path", "digest", "size", "role"}
    (evaluation,) = shown["evaluations"]
    assert set(evaluation) == {
        "suite", "task", "metric", "value", "stderr", "n", "higher_is_better", "filter", "split", "source", "at",
    }  # fmt: skip
    assert evaluation["higher_is_better"] is True


def test_list_is_an_array_of_summaries(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    assert adapters.json("list") == []
    adapters.json("push", str(write_adapter("my-lora")))
    (row,) = adapters.json("list")
    assert set(row) == SUMMARY


def test_every_command_gives_one_document(adapters: Adapters, write_adapter: WriteAdapter, tmp_path: Path) -> None:
    adapters.json("push", str(write_adapter("a", lora_tensors(value=0.1))), "--name", "x")
    adapters.json("push", str(write_adapter("b", lora_tensors(value=0.2))), "--name", "x")
    for arguments in (
        ["show", "x"],
        ["list", "--all-versions"],
        ["eval", "add", "x@1", "acc=0.5"],
        ["eval", "add", "x@2", "acc=0.6"],
        ["eval", "list", "x"],
        ["compare", "x@1", "x@2"],
        ["alias", "set", "x", "production", "1", "--expect", "none"],
        ["alias", "set", "x", "production", "2", "--expect", "1"],
        ["alias", "list", "x"],
        ["alias", "history", "x", "production"],
        ["alias", "rm", "x", "production"],
        ["tag", "set", "x", "k=v"],
        ["tag", "rm", "x", "k"],
        ["yank", "x@1", "--reason", "r"],
        ["unyank", "x@1"],
        ["pull", "x", "-o", str(tmp_path / "back")],
        ["delete", "x@1", "--reason", "r"],
        ["log", "x"],
        ["doctor", "--deep"],
        ["gc", "--grace", "0"],
        ["rebuild"],
        ["doctor"],
    ):
        said = adapters(*arguments, "--json")
        assert said.document is not None, arguments
        assert said.err == "", arguments


def test_compare_says_whether_a_difference_exceeds_the_noise(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    for name, value in (("a", 0.1), ("b", 0.2)):
        adapters.json("push", str(write_adapter(name, lora_tensors(value=value))), "--name", "x")
    adapters.json("eval", "add", "x@1", "acc=0.50", "--stderr", "0.03")
    adapters.json("eval", "add", "x@2", "acc=0.54", "--stderr", "0.04")
    (row,) = adapters.json("compare", "x@1", "x@2")["rows"]
    assert row["values"] == [0.50, 0.54]
    assert row["differences"] == [{"delta": pytest.approx(0.04), "better": True, "exceeds_stderr": False}]
