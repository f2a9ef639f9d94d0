"""``adapters gate`` and ``adapters promote``: the verdict, the exit code and the document agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

CHECK = {
    "condition", "holds", "reason", "sentence", "suite", "task", "metric", "filter", "split", "value", "stderr", "baseline",
    "baseline_stderr", "noise",
}  # fmt: skip


@pytest.fixture
def scored(adapters: Adapters, write_adapter: WriteAdapter) -> Adapters:
    """production → x@1; x@2 is worse within noise, x@3 beyond it."""
    for number, score in enumerate(("0.83", "0.82", "0.75"), start=1):
        adapters.json("push", str(write_adapter(f"d{number}", lora_tensors(value=number))), "--name", "x")
        adapters.json("eval", "add", f"x@{number}", f"acc={score}", "--task", "arc", "--stderr", "0.01")
    adapters.json("alias", "set", "x", "production", "1")
    return adapters


def answered(adapters: Adapters, *arguments: str) -> tuple[int, Any]:
    said = adapters(*arguments, "--json")
    assert said.err == ""
    return said.code, json.loads(said.out)


def test_a_drop_within_noise_is_no_regression_and_it_says_so(scored: Adapters) -> None:
    arguments = ("gate", "x@2", "--against", "production", "--min", "acc>=0.80", "--no-regression", "acc")
    code, document = answered(scored, *arguments)
    assert (code, document["holds"]) == (0, True)
    assert document.keys() == {"reference", "against", "holds", "conditions"}
    assert (document["reference"], document["against"]) == ("local/x@2", "local/x@1")
    minimum, kept = document["conditions"]
    assert minimum.keys() == kept.keys() == CHECK
    assert (minimum["condition"], minimum["reason"], minimum["value"]) == ("acc>=0.8", "met", 0.82)
    assert (kept["condition"], kept["reason"], kept["holds"]) == ("no-regression acc", "within-noise", True)
    assert (kept["value"], kept["baseline"]) == (0.82, 0.83)
    assert kept["noise"] == pytest.approx(0.01 * 2**0.5)
    said = scored(*arguments)
    assert said.code == 0
    assert "within noise" in said.out
    assert "holds: local/x@2 against local/x@1" in said.out


def test_a_closed_gate_exits_with_6_and_still_gives_the_document(scored: Adapters) -> None:
    arguments = ("gate", "x@3", "--against", "production", "--min", "acc>=0.80", "--no-regression", "acc:0.01")
    code, document = answered(scored, *arguments)
    assert (code, document["holds"]) == (6, False)
    assert [each["reason"] for each in document["conditions"]] == ["not-met", "regression"]
    said = scored(*arguments)
    assert said.code == 6
    assert "✗ arc/acc is 0.75, not >=0.8" in said.out
    assert "closed: local/x@3" in said.out


def test_how_much_is_noise_can_be_said(scored: Adapters) -> None:
    arguments = ("gate", "x@2", "--against", "production", "--no-regression", "acc", "--noise")
    assert answered(scored, *arguments, "0.5")[0] == 6
    assert answered(scored, *arguments, "1.96")[0] == 0


def test_promote_moves_only_if_the_gate_holds(scored: Adapters, tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('against = "production"\nmin = ["acc>=0.80"]\nno-regression = ["acc"]\n')
    arguments = ("--alias", "production", "--gate", str(file))
    code, document = answered(scored, "promote", "x@3", *arguments)
    assert (code, document["holds"], document["moved"]) == (6, False, False)
    assert (document["alias"], document["before"], document["after"]) == ("production", 1, 1)
    assert scored.json("alias", "list", "x") == [{"alias": "production", "version": 1}]
    code, document = answered(scored, "promote", "x@2", *arguments)
    assert (code, document["holds"], document["moved"]) == (0, True, True)
    assert (document["before"], document["after"], document["against"]) == (1, 2, "local/x@1")
    assert scored.json("alias", "list", "x") == [{"alias": "production", "version": 2}]
    assert answered(scored, "promote", "x@2", *arguments)[1]["moved"] is False
    assert "local/x:production → @2" in scored("promote", "x@2", *arguments).out
    said = scored("promote", "x@3", *arguments)
    assert (said.code, "→" in said.out) == (6, False)
    assert "nothing was moved" in said.err


def test_expect_is_compared_before_the_gate(scored: Adapters) -> None:
    arguments = ("promote", "x@3", "--alias", "production", "--no-regression", "acc", "--expect")
    for expected in ("2", "none"):
        error = scored.refusal(*arguments, expected)
        assert (error["code"], error["exit_code"]) == ("alias-moved", 5)
    assert scored(*arguments, "1").code == 6
    assert scored("promote", "x@2", "--alias", "new", "--min", "acc>=0.8", "--expect", "none").code == 0


def test_yanked_and_unknown(scored: Adapters, tmp_path: Path) -> None:
    scored.json("yank", "x@2", "--reason", "r")
    error = scored.refusal("promote", "x@2", "--alias", "production", "--no-regression", "acc")
    assert (error["code"], error["exit_code"]) == ("version-yanked", 6)
    assert scored.refusal("gate", "x@9", "--min", "acc>=0")["exit_code"] == 4
    assert scored.refusal("gate", "x@2", "--against", "x@9", "--min", "acc>=0")["exit_code"] == 4
    file = tmp_path / "gate.toml"
    file.write_text('minimum = ["acc>=0.8"]')
    error = scored.refusal("gate", "x@2", "--gate", str(file))
    assert (error["code"], error["exit_code"]) == ("malformed-gate", 3)
    assert "minimum" in error["message"]
    assert scored.refusal("gate", "x@2", "--min", "acc>>1")["exit_code"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["gate", "x"],
        ["gate", "x", "--against", "production"],
        ["gate", "x", "--no-regression", "acc"],
        ["promote", "x", "--alias", "production"],
        ["promote", "x", "--min", "acc>=0.8"],
    ],
)
def test_a_gate_that_asks_nothing_is_wrong_usage(scored: Adapters, arguments: list[str]) -> None:
    assert scored(*arguments).code == 2
