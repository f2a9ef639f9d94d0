"""Tokens in the catalog: what an event about them does, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, select

from registry.catalog.tables import TokenRow
from registry.domain.access import Action, NamespacePattern, Token

ADD_TOKEN = "token"  # noqa: S105 - the name of an event
REVOKE_TOKEN = "token-revoke"  # noqa: S105


def add_token(session: Session, at: str, facts: Mapping[str, Any]) -> None:
    session.add(
        TokenRow(
            id=facts["id"],
            name=facts["name"],
            hash=facts["hash"],
            actions=",".join(facts["actions"]),
            patterns=",".join(facts["patterns"]),
            created_at=at,
            expires_at=facts["expires_at"],
        )
    )


def revoke_token(session: Session, at: str, facts: Mapping[str, Any]) -> None:
    row = session.get(TokenRow, facts["id"])
    if row is not None:
        row.revoked_at = at


def find_token(session: Session, token_id: str) -> Token | None:
    row = session.get(TokenRow, token_id)
    return _token(row) if row else None


def all_tokens(session: Session) -> list[Token]:
    """In the order in which they were made."""
    return [_token(row) for row in session.exec(select(TokenRow).order_by(col(TokenRow.created_at), TokenRow.id))]


def _token(row: TokenRow) -> Token:
    return Token(
        row.id,
        row.name,
        row.hash,
        frozenset(action for action in Action if action in row.actions.split(",")),
        tuple(NamespacePattern(pattern) for pattern in row.patterns.split(",") if pattern),
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
