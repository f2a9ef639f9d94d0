"""``adapters serve``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import BadParameter, Exit, Option

from cli.context import Session
from cli.exits import INTERRUPTED
from cli.rendering import emit, note, say
from registry.errors import UnavailableError


def serve(
    session: Session,
    init: Annotated[
        bool, Option("--init", help="Make the store and one administrator's token, print it, and end.")
    ] = False,
    port: Annotated[int, Option(metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="The address to listen on. Beyond this machine only with tokens.")
    ] = "127.0.0.1",
    workers: Annotated[int, Option(metavar="N", min=1, max=64, help="Processes.")] = 1,
    public_url: Annotated[
        str | None, Option("--public-url", metavar="URL", help="Where clients reach it, if a proxy stands before it.")
    ] = None,
    anonymous_read: Annotated[
        bool, Option("--anonymous-read", help="Whoever comes may read what is not private.")
    ] = False,
    log_requests: Annotated[
        bool, Option("--log-requests", help="A line of JSON on stderr for each request, without tokens.")
    ] = False,
    upstream: Annotated[
        str | None, Option(metavar="URL", help="Another hub, to which unknown repositories are passed through.")
    ] = None,
) -> None:
    """Serve the registry over HTTP.

    To serving layers, to this command line elsewhere, and to clients of the Hub.

    Example: adapters serve --port 8000
    """
    from dataclasses import replace

    from registry.api.settings import Settings

    if session.is_remote:
        raise BadParameter("the store to serve lies here: give its directory with --registry")
    settings = replace(
        Settings.from_environment(),
        location=Path(session.location),
        host=host,
        port=port,
        workers=workers,
        anonymous_read=anonymous_read,
        log_requests=log_requests,
    )
    settings = replace(settings, public_url=public_url or settings.public_url, upstream=upstream or settings.upstream)
    try:
        from registry.api.serve import initialize
        from registry.api.serve import serve as listen
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"this needs {error.name}, which is not installed",
            code="server-missing",
            hint="pip install 'adapter-registry[server]'",
        ) from error

    if init:
        text = initialize(settings, actor=session.actor)
        if session.json:
            emit({"token": text})
        else:
            say(text)
            note(
                "an administrator's token: it is shown this once. ADAPTERS_TOKEN, or adapters login",
                quiet=session.quiet,
            )
        return
    try:
        listen(settings)
    except KeyboardInterrupt:
        note("stopped", quiet=session.quiet)
        raise Exit(INTERRUPTED) from None
