"""The command table as people read it: commands and options by purpose; and wrong usage as programs read it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

#: Of typer's own click or of click itself, as the installed typer has it.
UsageError: Any = BadParameter.__base__
_WRONG_USAGE = 2


class Command(TyperCommand):
    """Its options stand in the panels that they name."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, panels = [], {}  # type: ignore[var-annotated]
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append((parameter.metavar or record[0], record[1]))
            else:
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        _section(formatter, "Arguments", arguments)
        for name, options in panels.items():
            _section(formatter, name, options)


class Commands(TyperGroup):
    """Its commands stand in the panels that they name."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        room = formatter.width - 6 - max((len(name) for name, _ in found), default=0)
        for name, one in found:
            if one is not None and not one.hidden:
                panel = getattr(one, "rich_help_panel", None) or "Commands"
                panels.setdefault(panel, []).append((name, one.get_short_help_str(room)))
        for panel, rows in panels.items():
            _section(formatter, panel, rows)

    def main(self, args: Sequence[str] | None = None, *given: Any, **how: Any) -> Any:
        """Wrong usage is one JSON document on stderr where JSON was asked for, as every other error is."""
        arguments = list(sys.argv[1:] if args is None else args)
        if "--json" not in arguments:
            return super().main(arguments, *given, **how)
        try:
            code = super().main(arguments, *given, **{**how, "standalone_mode": False})
        except UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else "adapters"
            document = {
                "code": "usage",
                "message": error.format_message(),
                "hint": f"{where} --help",
                "exit_code": _WRONG_USAGE,
            }
            print(json.dumps({"error": document}), file=sys.stderr)
            sys.exit(_WRONG_USAGE)
        sys.exit(code or 0)


def _section(formatter: Any, name: str, rows: Iterable[tuple[str, str]]) -> None:
    rows = list(rows)
    if rows:
        with formatter.section(name):
            formatter.write_dl(rows)
