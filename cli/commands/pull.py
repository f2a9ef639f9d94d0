"""``adapters pull``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, note, progress, say


def pull(
    session: Session,
    reference: Annotated[str, Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")],
    served_only: Annotated[
        bool, Option("--served-only", help="Without training records: what an engine should load.")
    ] = False,
) -> None:
    """Write a version's files, every byte verified; complete or not at all.

    Example: adapters pull my-lora:production -o ./my-lora
    """
    with progress("pulling", silent=session.quiet or session.json) as advance:
        version, manifest = session.registry.pull(reference, output, served_only=served_only, progress=advance)
    if version.yanked is not None:
        note(f"warning: {version.reference} is yanked: {version.yanked}", quiet=session.quiet, style="yellow")
    written = [entry for entry in manifest.files if not served_only or entry.role.value == "served"]
    if session.json:
        emit(
            {
                "reference": version.reference,
                "digest": version.digest,
                "directory": str(output),
                "files": [{"path": entry.path, "digest": entry.digest, "size": entry.size} for entry in written],
                "yanked": version.yanked is not None,
            }
        )
        return
    say(
        f"{version.reference} → {output}  ({len(written)} files, {sum(entry.size for entry in written):,} bytes, verified)"
    )
