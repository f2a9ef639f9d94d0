"""Starting a server: what must hold before it listens, and the workers."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvicorn

from registry.api.app import create_app
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from registry.api.settings import Settings


def initialize(settings: Settings, *, actor: str) -> str:
    """Make the store if there is none, and one token that may do everything; returns its text, which is kept nowhere.

    Raises ConflictError if there is such a token already.
    """
    registry = connect(settings.location, actor=actor)
    live = [each for each in registry.catalog.tokens() if each.is_live(_now()) and Action.ADMIN in each.actions]
    if live:
        raise ConflictError(
            f"the registry at {settings.location} has an administrator's token already: {live[0].id}",
            code="initialized",
            hint=f"adapters token create, or first: adapters token revoke {live[0].id}",
        )
    text, kept = new_token("admin", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
    with registry.catalog.writing() as writer:
        writer.add_token(kept)
    return text


def serve(settings: Settings) -> None:
    """Listen until told to stop; requests under way are finished. Raises UnavailableError where it must not begin."""
    registry = connect(settings.location)
    if not settings.is_loopback and not [each for each in registry.catalog.tokens() if each.is_live(_now())]:
        raise UnavailableError(
            f"there are no tokens, so anybody who reaches {settings.host} could do everything",
            code="insecure-bind",
            hint="adapters serve --init makes an administrator's token; or listen on 127.0.0.1",
        )
    registry.catalog.prepare()
    if settings.log_requests:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("adapters").setLevel(logging.INFO)
    options = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 30,
        "proxy_headers": bool(settings.public_url),
    }
    if settings.workers == 1:
        uvicorn.run(create_app(settings), **options)  # type: ignore[arg-type]
        return
    os.environ.update(settings.environment())
    factory = "registry.api.app:from_environment"
    uvicorn.run(factory, factory=True, workers=settings.workers, **options)  # type: ignore[arg-type]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
