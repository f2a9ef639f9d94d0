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
    rich_markup_mode=None,  # plain help: no markdown engine at start-up
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None: ...


for _verb, _function in COMMANDS.items():
    app.command(_verb)(command(_function))
for _noun, (_text, _verbs) in GROUPS.items():
    _group = typer.Typer(help=_text, no_args_is_help=True, rich_markup_mode=None)
    for _verb, _function in _verbs.items():
        _group.command(_verb)(command(_function))
    app.add_typer(_group, name=_noun)


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
