"""``adapters login``, ``adapters logout``"""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

from typer import Argument

from cli.context import Session
from cli.rendering import emit, say
from registry.errors import DeniedError, InvalidInputError

_ADDRESS = Argument(metavar="URL", help="The server (default: --registry or ADAPTERS_REGISTRY).")


def login(session: Session, address: Annotated[str | None, _ADDRESS] = None) -> None:
    """Keep a token for a server. It is asked for, or read from stdin: never an argument, where others could see it.

    Example: adapters login https://registry.example
    """
    from cli.credentials import keep_token
    from registry.remote.client import Client

    server = _server(session, address)
    text = (getpass.getpass(f"token for {server}: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    found = Client(server, text).get("/v1/whoami")
    if not found["token"]:
        raise DeniedError(
            f"{server} does not know this token", hint="tokens begin with adr_; ask an administrator for one"
        )
    keep_token(server, text)
    if session.json:
        emit({"address": server, "actor": found["actor"]})
    else:
        say(f"{server}: you are {found['actor']}")


def logout(session: Session, address: Annotated[str | None, _ADDRESS] = None) -> None:
    """Forget the token for a server. It stays valid: adapters token revoke ends it.

    Example: adapters logout https://registry.example
    """
    from cli.credentials import keep_token, kept_token

    server = _server(session, address)
    was_kept = kept_token(server) is not None
    if was_kept:
        keep_token(server, None)
    if session.json:
        emit({"address": server})
    else:
        say(f"{server}: forgotten" if was_kept else f"{server}: no token was kept for it")


def _server(session: Session, address: str | None) -> str:
    server = address or session.location
    if not server.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"{server!r:.120} is not the address of a server", hint="adapters login https://registry.example"
        )
    return server
