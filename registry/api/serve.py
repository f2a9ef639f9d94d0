"""Starting a server: what must hold before it listens, and the workers."""

from __future__ import annotations

import os
import socket
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import Multiprocess

from registry.api.app import from_environment
from registry.api.connections import Connection, raise_limit
from registry.api.watching import TOGETHER
from registry.connect import embedded
from registry.domain.access import Action, NamespacePattern, new_token
from registry.domain.moments import utc_now
from registry.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from registry.api.settings import Settings

#: Seconds that a worker may be without a turn on a busy machine before it is taken for dead.
_PATIENCE = 60


def initialize(settings: Settings, *, actor: str) -> str:
    """Make the store if there is none, and one token that may do everything; returns its text, which is kept nowhere.

    Raises ConflictError if there is such a token already.
    """
    registry = embedded(settings.location, actor=actor)
    live = [each for each in registry.catalog.tokens() if each.is_live(utc_now()) and Action.ADMIN in each.actions]
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
    registry = embedded(settings.location)
    registry.catalog.require_current()
    if not settings.is_loopback and not [each for each in registry.catalog.tokens() if each.is_live(utc_now())]:
        raise UnavailableError(
            f"there are no tokens, so anybody who reaches {settings.host} could do everything",
            code="insecure-bind",
            hint="adapters serve --init makes an administrator's token; or listen on 127.0.0.1",
        )
    registry.catalog.prepare()
    os.environ.update(settings.environment())  # for the workers, and for what uvicorn makes by itself
    raise_limit()
    listener = _listener(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"serving {settings.location} at http://{shown}:{port}\n")
    sys.stderr.flush()
    config = configured(settings)
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with TemporaryDirectory(prefix="adapters-counters-") as counters:
        os.environ[TOGETHER] = counters
        Supervisor(config, sockets=[listener]).run()


def configured(settings: Settings) -> uvicorn.Config:
    """What each worker serves, and how. Several workers are given names alone: one that has to import the server to read them
    answers its supervisor only after that, which on a busy machine takes longer than the supervisor waits."""
    alone = settings.workers == 1
    return uvicorn.Config(
        from_environment() if alone else f"{from_environment.__module__}:{from_environment.__name__}",
        factory=not alone,
        workers=settings.workers,
        http=f"{Connection.__module__}:{Connection.__name__}",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
        timeout_worker_healthcheck=_PATIENCE,
        proxy_headers=bool(settings.public_url),
    )


class Supervisor(Multiprocess):
    """uvicorn's says to nobody that it lost a worker, or killed one that did not answer."""

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for worker in before:
            if worker not in self.processes:
                sys.stderr.write(
                    f"worker {worker.pid} is gone (exit code {worker.exitcode}), another takes its place\n"
                )
                sys.stderr.flush()


def _listener(settings: Settings) -> socket.socket:
    """Open before any worker is, so that a port that is taken is said at once. Raises UnavailableError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            code="address-in-use",
            hint="is a server running there already? Take another --port",
        ) from error
