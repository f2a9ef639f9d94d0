"""How a command ends: 0 done, 2 wrong usage, 3 to 9 by the error tree of :mod:`registry.errors`, 130 interrupted."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

from cli.streams import let_go, put
from registry.errors import InvalidInputError, RegistryError

INTERRUPTED = 130
#: Of several the gravest says the exit code: a misfit, a broken one, a damaged one, none, what nobody knows; then the lowest.
_GRAVEST_FIRST = (6, 3, 7, 4, 8)


@contextmanager
def ending(*, json: bool) -> Iterator[None]:
    """One sentence and a hint on stderr (one JSON document with ``json``), and the exit code of the error's family."""
    try:
        yield
        sys.stdout.flush()
    except RegistryError as error:
        if json:
            document = {
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            findings = [finding.document() for finding in error.findings]
            if findings:
                document["findings"] = findings  # type: ignore[assignment]
            put(jsonlib.dumps({"error": document}) + "\n", sys.stderr)
        else:
            from cli.rendering import complain

            complain(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted; nothing that loads was left behind", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        let_go(sys.stdout)
        raise typer.Exit(0) from None


@contextmanager
def usage() -> Iterator[None]:
    """What no value of an option may be is wrong usage."""
    try:
        yield
    except InvalidInputError as error:
        raise typer.BadParameter("; ".join(part for part in (error.message, error.hint) if part)) from None


def gravest(codes: Iterable[int]) -> int:
    """The exit code that stands for several, none of which is 0."""
    return min(codes, key=lambda code: (_GRAVEST_FIRST.index(code) if code in _GRAVEST_FIRST else 99, code))
