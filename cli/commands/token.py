"""``adapters token create|list|revoke``"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import emit, note, say, table

#: Each role may do what those before it may.
ROLES = {
    "reader": ("read",),
    "writer": ("read", "push"),
    "maintainer": ("read", "push", "tag", "yank"),
    "owner": ("read", "push", "tag", "yank", "delete"),
    "admin": ("admin",),
}


def create(
    session: Session,
    name: Annotated[str, Argument(metavar="NAME", help="Whose it is: how the audit names them.")],
    role: Annotated[str, Option(metavar="ROLE", help="reader, writer, maintainer, owner or admin.")] = "reader",
    action: Annotated[
        list[str] | None, Option(metavar="ACTION", help="Instead of a role: read, push, tag, yank, delete.")
    ] = None,
    scope: Annotated[list[str] | None, Option(metavar="PATTERN", help="*, team/*, team/name; default *.")] = None,
    days: Annotated[int, Option(metavar="N", min=1, max=365, help="After which it ends.")] = 90,
) -> None:
    """Make a token; its text is shown this once.

    Example: adapters token create ci --role writer --scope "team/*"
    """
    from registry.domain.access import Action

    if role not in ROLES:
        raise BadParameter(f"--role {role}: expected {', '.join(ROLES)}")
    if unknown := set(action or ()) - set(Action):
        raise BadParameter(f"--action {unknown.pop()}: expected {', '.join(Action)}")
    actions = [Action(text) for text in action or ROLES[role]]
    text, made = session.registry.create_token(name, actions, patterns=scope or ("*",), days=days)
    if session.json:
        emit({"text": text, **made.document()})
    else:
        say(text)
        note(f"shown this once; it ends on {made.expires_at}", quiet=session.quiet)


def list_(session: Session) -> None:
    """Every token, without its text.

    Example: adapters token list
    """
    tokens = session.registry.tokens()
    if session.json:
        emit([token.document() for token in tokens])
        return
    rows = [
        (each.id, each.name, sorted(each.actions), each.patterns, each.expires_at or "never", each.revoked_at or "")
        for each in tokens
    ]
    if rows:
        table(["id", "name", "may", "where", "ends", "revoked"], rows)
    else:
        note("no tokens yet: adapters serve --init, or adapters token create NAME", quiet=session.quiet)


def revoke(
    session: Session, token_id: Annotated[str, Argument(metavar="ID", help="As `token list` shows it.")]
) -> None:
    """End a token at once.

    Example: adapters token revoke k3f9q2m7xa
    """
    token = session.registry.revoke_token(token_id)
    if session.json:
        emit(token.document())
    else:
        say(f"{token.id} ({token.name}) is revoked")


VERBS: dict[str, Callable[..., None]] = {"create": create, "list": list_, "revoke": revoke}
