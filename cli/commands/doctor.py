"""``adapters doctor``"""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from cli.context import Session
from cli.rendering import emit, progress, say
from registry.errors import CorruptionError


def doctor(
    session: Session,
    deep: Annotated[bool, Option("--deep", help="Read and hash every stored byte.")] = False,
) -> None:
    """Prove that everything acknowledged is there, unchanged.

    Exit 7 if not.

    Example: adapters doctor --deep
    """
    with progress("reading", silent=session.quiet or session.json) as advance:
        diagnosis = session.registry.doctor(deep=deep, progress=advance)
    if session.json:
        emit(
            {
                "ok": not diagnosis.problems,
                "deep": deep,
                "versions": diagnosis.versions,
                "blobs": diagnosis.blobs,
                "unreferenced": diagnosis.unreferenced,
                "problems": [problem.document() for problem in diagnosis.problems],
            }
        )
    else:
        for problem in diagnosis.problems:
            owners = f" (versions: {', '.join(problem.owners)})" if problem.owners else ""
            say(f"{problem.invariant}: {problem.message}{owners}", "red")
        if not diagnosis.problems:
            say(f"sound: {diagnosis.versions} versions, {diagnosis.blobs} blobs{', every byte read' if deep else ''}")
        if diagnosis.unreferenced:
            say(f"{diagnosis.unreferenced} blobs belong to no version; `adapters gc` takes them")
    if diagnosis.problems:
        raise Exit(CorruptionError.exit_code)
