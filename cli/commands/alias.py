"""``adapters alias set|list|history|rm``"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import emit, note, say, table
from cli.typed import expected_version, version_typed

_NAME = Argument(metavar="NAME", help="[ns/]name")
_ALIAS = Argument(metavar="ALIAS", help="Such as production.")


def set_(
    session: Session,
    name: Annotated[str, Argument(metavar="NAME[@VERSION]", help="[ns/]name, or a version of it: name@2.")],
    alias: Annotated[str, _ALIAS],
    version: Annotated[
        str | None, Argument(metavar="VERSION", help="A number, if it does not stand behind the name.")
    ] = None,
    expect: Annotated[str | None, Option(metavar="VERSION|none", help="Move only from there.")] = None,
) -> None:
    """Point an alias at a version.

    With --expect only if it points where you think it does.

    Example: adapters alias set my-lora production 4 --expect 3
    """
    name, at, behind = name.partition("@")
    if (version is None) != bool(at):
        raise BadParameter("say once which version: NAME ALIAS VERSION, or NAME@VERSION ALIAS", param_hint="VERSION")
    number = version_typed(behind if version is None else version)
    if expect is None:
        move = session.registry.set_alias(name, alias, number)
    else:
        move = session.registry.set_alias(name, alias, number, expected=expected_version(expect))
    before = move.before if move else number
    if session.json:
        emit(
            {
                "adapter": str(session.registry.adapter(name)),
                "alias": alias,
                "version": number,
                "previous": before,
                "moved": move is not None,
            }
        )
        return
    say(f"{session.registry.adapter(name)}:{alias} → @{number}")
    if move is None:
        note("it pointed there already", quiet=session.quiet)


def list_(session: Session, name: Annotated[str, _NAME]) -> None:
    """The aliases of an adapter.

    Example: adapters alias list my-lora
    """
    aliases = session.registry.aliases(name)
    if session.json:
        emit([{"alias": alias, "version": number} for alias, number in aliases.items()])
    elif aliases:
        table(["alias", "version"], aliases.items(), right=["version"])
    else:
        note("no aliases yet: adapters alias set NAME production VERSION", quiet=session.quiet)


def history(session: Session, name: Annotated[str, _NAME], alias: Annotated[str, _ALIAS]) -> None:
    """Every move of an alias, oldest first.

    Example: adapters alias history my-lora production
    """
    moves = session.registry.alias_history(name, alias)
    if session.json:
        emit([{"alias": m.alias, "from": m.before, "to": m.after, "at": m.at, "actor": m.actor} for m in moves])
        return
    table(["at", "from", "to", "by"], [(m.at, m.before or "–", m.after or "removed", m.actor) for m in moves])


def rm(session: Session, name: Annotated[str, _NAME], alias: Annotated[str, _ALIAS]) -> None:
    """Remove an alias; its history stays.

    Example: adapters alias rm my-lora staging
    """
    move = session.registry.remove_alias(name, alias)
    if session.json:
        emit(
            {
                "adapter": str(session.registry.adapter(name)),
                "alias": alias,
                "version": None,
                "previous": move.before if move else None,
                "moved": True,
            }
        )
    else:
        say(f"{session.registry.adapter(name)}:{alias} removed")


VERBS: dict[str, Callable[..., None]] = {"set": set_, "list": list_, "history": history, "rm": rm}
