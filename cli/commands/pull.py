"""``adapters pull``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import counted, emit, note, progress, say


def pull(
    session: Session,
    reference: Annotated[
        str,
        Argument(
            metavar="REF|hf://OWNER/NAME[@REV]", help="[ns/]name, name@3, name:alias, sha256:… or a Hub repository."
        ),
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output", "-o", metavar="DIR", help="A directory that is empty or not there. Default: what it is called."
        ),
    ] = None,
    served_only: Annotated[
        bool, Option("--served-only", help="Without training records: what an engine should load.")
    ] = False,
    adapter: Annotated[
        str | None, Option(metavar="SUB", help="The folder of the adapter meant, in a Hub repository.")
    ] = None,
) -> None:
    """Write a version's files, every byte verified.

    The directory appears complete or not at all.

    Of a repository of the Hugging Face Hub only the files that an adapter has are fetched, pinned to a commit, each held against
    its digest; nothing is recorded here, see `adapters import`.

    Example: adapters pull my-lora:production -o ./my-lora
    """
    if reference.startswith("hf://"):
        if served_only:
            raise BadParameter("--served-only is about a version of the registry")
        _from_hub(session, reference, output, adapter)
        return
    if adapter is not None:
        raise BadParameter("--adapter is about a repository of the Hub")
    if output is None:
        output = _called(session, reference)
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
    bytes_written = sum(entry.size for entry in written)
    say(f"{version.reference} → {output}  ({counted(len(written), 'file')}, {bytes_written:,} bytes, verified)")


def _from_hub(session: Session, source: str, output: Path | None, adapter: str | None) -> None:
    from registry.operations.hub_address import HubAddress

    into = output if output is not None else Path(adapter or HubAddress.parse(source).name)
    with progress("pulling", silent=session.quiet or session.json) as advance:
        fetched = session.registry.pull_from_hub(source, into, adapter=adapter, progress=advance)
    if session.json:
        emit(fetched.document(into))
        return
    for finding in fetched.findings:
        note(f"warning: {finding.message}", quiet=session.quiet, style="yellow")
    received = sum(file.size for file in fetched.files)
    say(f"{fetched.address} → {into}  ({counted(len(fetched.files), 'file')}, {received:,} bytes, verified)")


def _called(session: Session, reference: str) -> Path:
    found = session.registry.reference(reference)
    if found.adapter is None:
        raise BadParameter("a digest has no name: say where to with -o DIR")
    return Path(str(found.adapter.name))
