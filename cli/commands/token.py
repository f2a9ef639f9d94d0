"""``adapters token create|list|revoke``"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import emit, note, say, table
from registry.errors import ConflictError

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
    from registry.domain.access import Action, NamespacePattern, new_token
    from registry.domain.moments import days_from_now

    if role not in ROLES:
        raise BadParameter(f"--role {role}: expected {', '.join(ROLES)}")
    if unknown := set(action or ()) - set(Action):
        raise BadParameter(f"--action {unknown.pop()}: expected {', '.join(Action)}")
    actions = [Action(text) for text in action or ROLES[role]]
    patterns = [NamespacePattern(text) for text in scope or ("*",)]
    if Action.ADMIN not in actions:
        _require_administrator(session)
    text, kept = new_token(name, actions, patterns, expires_at=days_from_now(days))
    with session.registry.catalog.writing() as writer:
        made = writer.add_token(kept)
    if session.json:
        emit({"text": text, **made.document()})
    else:
        say(text)
        note(f"shown this once; it ends on {made.expires_at}", quiet=session.quiet)


def _require_administrator(session: Session) -> None:
    """Raises ConflictError: with the first token a server asks everybody for one, and nobody could make another."""
    from registry.domain.access import Action
    from registry.domain.moments import utc_now

    now = utc_now()
    if not any(each.is_live(now) and Action.ADMIN in each.actions for each in session.registry.catalog.tokens()):
        raise ConflictError(
            "there is no administrator's token yet, and with this one the server would shut everybody else out",
            code="no-administrator",
            hint="first, where the registry lies: adapters serve --init; or here: adapters token create NAME --role admin",
        )


def list_(session: Session) -> None:
    """Every token, without its text.

    Example: adapters token list
    """
    tokens = session.registry.catalog.tokens()
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
    with session.registry.catalog.writing() as writer:
        token = writer.revoke_token(token_id)
    if session.json:
        emit(token.document())
    else:
        say(f"{token.id} ({token.name}) is revoked")


VERBS: dict[str, Callable[..., None]] = {"create": create, "list": list_, "revoke": revoke}
