"""``adapters rules`` names everything that a finding can be called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from cli.other_rules import OTHER_RULES
from registry.checks.table import RULES
from registry.plans.merge_refusals import _NO_DELTA
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors

ROOT = Path(__file__).parents[2] / "registry"
#: What makes a finding, and at which place its rule stands.
MAKERS = {"Finding": 0, "Misfit": 0, "Objection": 0, "error": 0, "warning": 0, "info": 0, "note": 0, "_info": 0, "_unknown": 2}
ROOMS = ("checks", "formats", "operations", "plans", "variants")
#: Fields of the config, which MalformedConfigError is about; `refuse` makes findings in plans alone.
REFUSES = "plans"


def said() -> Iterator[str]:
    for room in ROOMS:
        makers = {**MAKERS, **({"refuse": 0} if room == REFUSES else {})}
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                    place = makers.get(name)
                    if place is not None and place < len(node.args):
                        word = node.args[place]
                        if isinstance(word, ast.Constant) and isinstance(word.value, str):
                            yield word.value


def test_every_rule_that_is_in_the_source_is_listed(adapters: Adapters) -> None:
    listed = {row["rule"] for row in adapters.json("rules")}
    found = {word for word in said() if " " not in word and "%" not in word}
    assert len(found) > 90
    assert found - listed == set()
    assert {rule.id for rule in OTHER_RULES} - found - {"base-not-checked", *(f"weight-on-{name}" for name in _NO_DELTA)} == set()


def test_no_rule_is_listed_twice() -> None:
    names = [rule.id for rule in (*RULES, *OTHER_RULES)]
    assert len(names) == len(set(names))
    assert all(rule.severity in ("error", "warning", "note") and rule.reason.endswith(".") for rule in OTHER_RULES)


def test_what_a_push_says_can_be_looked_up_and_allowed(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    listed = {row["rule"]: row for row in adapters.json("rules")}
    bad = str(write_adapter("bad", lora_tensors(value=float("nan"))))
    findings = adapters.refusal("push", bad)["findings"]
    assert findings
    for finding in findings:
        assert listed[finding["rule"]]["severity"] == finding["severity"]
        assert listed[finding["rule"]]["may_be_allowed"]
    allowed = [word for finding in findings for word in ("--allow", finding["rule"])]
    assert adapters("push", bad, *allowed).code == 0
    assert "nonfinite (error), push, check; --allow takes it" in adapters("rules").out
