"""The verbs about tokens: who may ask a server for what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from registry.errors import ConflictError, InvalidInputError, InvalidValueError
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.domain.access import Action, Token


#: A token ends after so many at the latest.
MOST_DAYS = 365


class AccessVerbs(Store):
    """What lets somebody in, and shuts them out."""

    __slots__ = ()

    def create_token(
        self, name: str, actions: Iterable[Action], *, patterns: Iterable[str] = ("*",), days: int = 90
    ) -> tuple[str, Token]:
        """The token's text, which is kept nowhere, and what is kept of it. It ends after ``days``.

        Raises InvalidInputError, and ConflictError for the first token if it is not an administrator's: with it a server asks
        everybody for one, and nobody could make another."""
        from registry.domain.access import Action, NamespacePattern, new_token
        from registry.domain.moments import days_from_now, utc_now

        if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
            raise InvalidValueError("number of days", str(days), f"1 to {MOST_DAYS}")
        scope = [NamespacePattern(each) for each in patterns]
        if isinstance(actions, str) or not (wanted := list(actions)) or not scope:
            raise InvalidInputError("a token is for at least one action, on at least one pattern of names")
        if (odd := next((each for each in wanted if each not in list(Action)), None)) is not None:
            raise InvalidValueError("action", str(odd), f"one of {', '.join(Action)}")
        text, kept = new_token(name, map(Action, wanted), scope, expires_at=days_from_now(days))
        now = utc_now()
        if not any(Action.ADMIN in each.actions and each.is_live(now) for each in (kept, *self.catalog.tokens())):
            raise ConflictError(
                "there is no administrator's token yet, and with this one the server would shut everybody else out",
                code="no-administrator",
                hint="first, where the registry lies: adapters serve --init; or here: adapters token create NAME --role admin",
            )
        with self.catalog.writing() as writer:
            return text, writer.add_token(kept)

    def tokens(self) -> Sequence[Token]:
        """In the order in which they were made; none can be told from what is kept."""
        return self.catalog.tokens()

    def revoke_token(self, token_id: str) -> Token:
        """End a token at once. Raises NotFoundError; again is a no-op."""
        with self.catalog.writing() as writer:
            return writer.revoke_token(token_id)
