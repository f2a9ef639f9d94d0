"""``adapters promote``"""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from cli.commands.gate import AGAINST, FILE, MINIMUM, NO_REGRESSION, NOISE, REF, conditions, show
from cli.context import Session
from cli.rendering import emit, note, say
from cli.typed import expected_version


def promote(
    session: Session,
    reference: REF,
    alias: Annotated[str, Option(metavar="ALIAS", help="What is to point at it, such as production.")],
    file: FILE = None,
    against: AGAINST = None,
    minimum: MINIMUM = None,
    no_regression: NO_REGRESSION = None,
    noise: NOISE = None,
    expect: Annotated[str | None, Option(metavar="VERSION|none", help="Move only from there.")] = None,
) -> None:
    """Move an alias, but only if the gate holds.

    Looking, judging and moving are one transaction.

    Without --against the version is held against what the alias points at now. Exit codes: 0 the alias points there, 6 the
    gate is closed and nothing moved, 5 the alias is not where --expect says.

    Example: adapters promote my-lora --alias production --gate gate.toml
    """
    from registry.catalog.protocol import ANYTHING

    promotion = session.registry.promote(
        reference,
        alias,
        conditions(file, against, minimum, no_regression, noise),
        expected=ANYTHING if expect is None else expected_version(expect),
    )
    if session.json:
        emit(promotion.document())
    else:
        show(promotion.outcome)
    if promotion.outcome.failure is not None:
        note("nothing was moved", quiet=session.quiet or session.json)
        raise Exit(promotion.outcome.failure.exit_code)
    if not session.json:
        say(f"{promotion.adapter}:{promotion.alias} → @{promotion.after}")
        if not promotion.moved:
            note("it pointed there already", quiet=session.quiet)
