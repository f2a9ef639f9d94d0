"""The command table."""

from __future__ import annotations

import gc as garbage
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from cli.commands import (
    alias,
    base,
    card,
    check,
    combine,
    compare,
    delete,
    doctor,
    evaluate,
    export,
    extract,
    gate,
    gc,
    import_,
    inspect,
    log,
    login,
    merge,
    migrate,
    promote,
    pull,
    push,
    rebuild,
    rerank,
    rules,
    serve,
    show,
    tag,
    token,
    verify,
    yank,
)
from cli.commands import list as listing
from cli.context import LEADING, command
from cli.exits import INTERRUPTED
from cli.helping import Command, Commands
from cli.streams import spell_out

COMMANDS: dict[str, Callable[..., None]] = {
    "push": push.push,
    "list": listing.list_,
    "show": show.show,
    "pull": pull.pull,
    "import": import_.import_,
    "card": card.card,
    "compare": compare.compare,
    "gate": gate.gate,
    "promote": promote.promote,
    "check": check.check,
    "export": export.export,
    "merge": merge.merge,
    "verify": verify.verify,
    "combine": combine.combine,
    "rerank": rerank.rerank,
    "extract": extract.extract,
    "inspect": inspect.inspect,
    "diff": inspect.diff,
    "interference": inspect.interference,
    "rules": rules.rules,
    "serve": serve.serve,
    "login": login.login,
    "logout": login.logout,
    "yank": yank.yank,
    "unyank": yank.unyank,
    "delete": delete.delete,
    "log": log.log,
    "audit": log.log,
    "doctor": doctor.doctor,
    "gc": gc.gc,
    "rebuild": rebuild.rebuild,
    "migrate": migrate.migrate,
}
#: The commands and groups by what they are for, as the help shows them.
PANELS: dict[str, tuple[str, ...]] = {
    "Store and find": ("push", "list", "show", "pull", "tag", "alias", "yank", "unyank", "delete"),
    "Measure and promote": ("eval", "compare", "gate", "promote"),
    "Check and export": ("check", "export", "rules", "base"),
    "Merge": ("merge", "verify"),
    "Combine and look inside": ("combine", "rerank", "extract", "inspect", "diff", "interference"),
    "Hugging Face Hub": ("import", "card"),
    "Server": ("serve", "token", "login", "logout"),
    "Upkeep": ("log", "audit", "doctor", "gc", "rebuild", "migrate"),
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "alias": ("Movable pointers such as production.", alias.VERBS),
    "tag": ("Labels on a version: key=value.", tag.VERBS),
    "base": ("Base models that pushes are checked against.", base.VERBS),
    "token": ("Who may do what on a server.", token.VERBS),
    "eval": ("Scores of a version.", evaluate.VERBS),
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"adapters {version('adapter-registry')}")
        raise typer.Exit


app = typer.Typer(
    name="adapters",
    help="A versioned registry for LoRA adapters: push, find, promote, pull.",
    epilog="Exit codes: 0 done, 2 usage, 3 broken input, 4 not found, 5 conflict, 6 rejected, 7 corruption, "
    "8 unavailable, 9 denied.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=Commands,
    rich_markup_mode=None,  # plain help: no markdown engine at start-up
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None: ...


def _register() -> None:
    for panel, names in PANELS.items():
        for name in names:
            if name in COMMANDS:
                app.command(name, cls=Command, rich_help_panel=panel)(command(COMMANDS[name]))
                continue
            text, verbs = GROUPS[name]
            group = typer.Typer(cls=Commands, help=text, no_args_is_help=True, rich_markup_mode=None)
            for verb, function in verbs.items():
                group.command(verb, cls=Command)(command(function))
            app.add_typer(group, name=name, rich_help_panel=panel)


_register()


def entry() -> None:
    """The entry point ``adapters``: :func:`main`, and then the end at once. Taking torch down would take a tenth of a second."""
    try:
        main()
    except SystemExit as ending:
        if "torch" not in sys.modules or not isinstance(ending.code, int):
            raise
        with suppress(OSError):  # the reader left
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ending.code)


def main() -> None:
    """The whole command line. Raises SystemExit."""
    spell_out()
    try:
        app(args=_options_last(sys.argv[1:]), prog_name="adapters")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        garbage.freeze()  # nothing is looked through once more on the way out


def _options_last(arguments: list[str]) -> list[str]:
    """``adapters --registry DIR list`` → ``adapters list --registry DIR``: each command knows these options."""
    leading: list[str] = []
    rest = list(arguments)
    while rest and rest[0].partition("=")[0] in LEADING:
        takes_value = LEADING[rest[0].partition("=")[0]] and "=" not in rest[0]
        count = 2 if takes_value else 1
        leading, rest = leading + rest[:count], rest[count:]
    if not leading or not rest or rest[0].startswith("-"):
        return arguments
    words = 2 if rest[0] in GROUPS else 1
    return rest[:words] + leading + rest[words:]
