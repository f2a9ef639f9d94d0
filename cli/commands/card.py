"""``adapters card``"""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, say, show_findings


def card(
    session: Session,
    reference: Annotated[str, Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")],
    to: Annotated[str | None, Option(metavar="hf://OWNER/NAME", help="The repository it would stand in.")] = None,
    base: Annotated[str | None, Option(metavar="ID", help="The base's repository, if it is not known.")] = None,
) -> None:
    """The model card of a version, as a push to the Hub sends it.

    It has base, method, scores, training, and what its author wrote.

    Example: adapters card my-lora@3 > README.md
    """
    text, findings = session.registry.card(reference, to=to, base=base)
    if session.json:
        emit({"card": text, "findings": [finding.document() for finding in findings]})
        return
    show_findings(findings, quiet=session.quiet)
    if sys.stdout.isatty():
        say(text.rstrip("\n"))
    else:  # a file gets what a push would send
        sys.stdout.buffer.write(text.encode())
