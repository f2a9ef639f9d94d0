"""``adapters login``, ``adapters logout``"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from typer import Argument

from cli.context import Session
from cli.rendering import emit, say
from registry.errors import InvalidInputError

_ADDRESS = Argument(metavar="URL", help="The server (default: --registry or ADAPTERS_REGISTRY).")


def login(session: Session, address: Annotated[str | None, _ADDRESS] = None) -> None:
    """Keep a token for a server. It is asked for, or read from stdin: never an argument, where others could see it.

    Example: adapters login https://registry.example
    """
    from cli.credentials import keep_token, warn_if_overheard
    from registry.remote.client import Client

    server = _server(session, address)
    warn_if_overheard(server, quiet=session.quiet or session.json)
    text = (getpass.getpass(f"token for {server}: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not text:
        raise InvalidInputError("no token was given", hint="it begins with adr_; ask an administrator for one")
    client = Client(server, text)
    actor, is_known = client.get("/v1/whoami", _read_whoami)
    if not is_known:
        raise client.unknown_token()
    keep_token(server, text)
    if session.json:
        emit({"address": server, "actor": actor})
    else:
        say(f"{server}: you are {actor}")


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


def _read_whoami(document: Any) -> tuple[str, bool]:
    from registry.remote.values import shaped

    return shaped(document["actor"], str), shaped(document["token"], Mapping[str, object] | None) is not None


def _server(session: Session, address: str | None) -> str:
    server = address or session.location
    if not server.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"{server!r:.120} is not the address of a server", hint="adapters login https://registry.example"
        )
    return server
