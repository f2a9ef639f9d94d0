"""``adapters doctor``"""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from cli.context import Session
from cli.rendering import counted, emit, progress, say
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
            versions, blobs = counted(diagnosis.versions, "version"), counted(diagnosis.blobs, "blob")
            say(f"sound: {versions}, {blobs}{', every byte read' if deep else ''}")
        if diagnosis.unreferenced:
            say(f"of no version: {counted(diagnosis.unreferenced, 'blob')}; `adapters gc` takes them away")
    if diagnosis.problems:
        raise Exit(CorruptionError.exit_code)
