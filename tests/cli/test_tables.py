"""What is shown of many: pages that say that there are more, rows that stay rows, and columns in a narrow place."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from cli.rendering import pairs, table
from tests.cli.conftest import Adapters
from tests.conftest import WriteAdapter, lora_tensors


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int, *, terminal: bool = True) -> list[str]:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    row = ("acme/support-assistant-for-everybody@12", "a-base-of-a-long-name/" + "x" * 40, "lora", 16, "y" * 500)
    table(["adapter", "base", "type", "rank", "targets"], [row], shrink=["base", "targets"])
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


@pytest.mark.parametrize("columns", [120, 80, 60, 45, 39])
def test_what_one_has_to_type_is_never_cut(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    head, row = drawn(monkeypatch, columns)
    assert row.startswith("acme/support-assistant-for-everybody@12")
    assert max(len(head), len(row)) <= columns


def test_in_the_narrowest_place_the_name_is_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line.strip() for line in drawn(monkeypatch, 20)] == ["adapter", "acme/support-assistant-for-everybody@12"]


def test_nothing_is_cut_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = drawn(monkeypatch, 20, terminal=False)
    assert row.rstrip().endswith("y" * 500)


def test_a_row_is_a_line_and_what_is_nested_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    table(["facts"], [({"note": "two\nlines", "gate": {"against": "x@1", "min": ["acc>=0.8"]}},)])
    pairs([("note", "two\nlines"), ("training", {"loss": {"first": 0.5, "last": 0.25}})])
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
        "facts",
        r"note=two\nlines, gate={against: x@1, min: [acc>=0.8]}",
        r"note      two\nlines",
        "training  loss={first: 0.5, last: 0.25}",
    ]


def test_a_page_says_whether_there_are_more_also_beside_json(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    for name in ("a", "b", "c"):
        adapters.json("push", str(write_adapter(name, lora_tensors(value=ord(name) / 500))))
    for form in ([], ["--json"]):
        said = adapters("list", "--limit", "2", *form)
        assert said.err == "more with --after local/b@1\n"
        assert adapters("list", "--limit", "2", "--quiet", *form).err == ""
        assert adapters("list", "--limit", "3", *form).err == ""
        said = adapters("log", "--limit", "2", *form)
        assert said.err == "only the newest 2 of them; more with --limit 20\n"
        assert adapters("log", "--limit", "3", *form).err == ""
    assert len(json.loads(adapters("list", "--limit", "2", "--json").out)) == 2
    assert len(json.loads(adapters("log", "--limit", "2", "--json").out)) == 2


def test_the_log_is_a_line_for_each_entry(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("a")), "--note", "one\ntwo")
    adapters.json("eval", "add", "a", "acc=0.5", "--task", "t")
    adapters.json("promote", "a", "--alias", "production", "--min", "acc>=0.1")
    lines = adapters("log").out.splitlines()
    assert len(lines) == 1 + len(adapters.json("log"))
    assert any("gate={" in line for line in lines)
    assert r"one\ntwo" in adapters("show", "a").out


def test_a_word_that_nobody_knows_is_said(adapters: Adapters, write_adapter: WriteAdapter) -> None:
    adapters.json("push", str(write_adapter("a")))
    said = adapters("list", "--type", "foo")
    assert (said.code, said.out) == (0, "")
    assert "--type foo" in said.err
    assert "LORA" in said.err
    said = adapters("list", "--sort", "foo")
    assert "--sort foo" in said.err
    assert "name, created, rank, bytes, parameters" in said.err
    assert "push DIR" in adapters("list", "--type", "IA3").err
