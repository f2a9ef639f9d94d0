"""Wrong usage, as people and as programs read it; and the table of commands."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli.main import COMMANDS, GROUPS, PANELS, app
from tests.cli.conftest import Adapters


@pytest.mark.parametrize(
    "line",
    [
        ["push"],
        ["list", "--nope"],
        ["list", "--limit", "many"],
        ["alias", "nope"],
        ["nope"],
        ["check", "./x"],
        ["merge", "./a", "./b"],
        ["combine", "acme/support@1=x", "acme/support@2=0.3", "-o", "b"],
        ["token", "create", "x", "--role", "king"],
    ],
)
def test_under_json_wrong_usage_is_the_error_document_that_every_error_is(adapters: Adapters, line: list[str]) -> None:
    said = adapters(*line, "--json")
    assert (said.code, said.out) == (2, "")
    assert set(said.error) == {"code", "message", "hint", "exit_code"}
    assert (said.error["code"], said.error["exit_code"]) == ("usage", 2)
    assert said.error["hint"].startswith("adapters") and said.error["hint"].endswith("--help")


def test_without_json_it_is_a_sentence(adapters: Adapters) -> None:
    said = adapters("list", "--nope")
    assert (said.code, said.out) == (2, "")
    assert "No such option: --nope" in said.err


def test_what_is_no_weight_is_called_so(adapters: Adapters) -> None:
    for line in (["combine", "acme/support@1=x", "-o", "b"], ["interference", "acme/support@1=x", "acme/support@2"]):
        said = adapters(*line)
        assert (said.code, said.out) == (2, "")
        assert "'x' is no weight: give a number, as in NAME=0.7" in said.err


def test_under_json_what_goes_well_ends_with_0_and_other_errors_with_their_code(adapters: Adapters) -> None:
    assert adapters("list", "--json").code == 0
    assert adapters("show", "nobody", "--json").code == 4


def test_every_command_stands_in_one_panel() -> None:
    named = [name for names in PANELS.values() for name in names]
    assert sorted(named) == sorted([*COMMANDS, *GROUPS])


def test_the_table_of_commands_cuts_no_sentence() -> None:
    tables = [CliRunner().invoke(app, line).stdout for line in [["--help"], *([noun, "--help"] for noun in GROUPS)]]
    assert all("Usage: " in table for table in tables)
    assert [line for table in tables for line in table.splitlines()[1:] if line.endswith("...")] == []
    assert all(f"{panel}:" in tables[0] for panel in PANELS)


def test_no_value_is_named_twice(adapters: Adapters) -> None:
    lines = [[verb] for verb in COMMANDS] + [[noun, verb] for noun, (_, verbs) in GROUPS.items() for verb in verbs]
    for line in lines:
        said = adapters(*line, "--help").out
        usage = said.split("\n\n")[0]
        assert not any(twice in usage for twice in ("[[", "...]...", "…")), usage
        assert "<str>" not in said, line
        assert "list[" not in said, line
        assert "``" not in said, line


