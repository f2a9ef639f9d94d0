"""``adapters import``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.exits import gravest
from cli.rendering import emit, note, progress, say, show_findings

if TYPE_CHECKING:
    from registry.operations.hub_import import Imported

_MOST_JOBS = 32


def import_(
    session: Session,
    source: Annotated[str | None, Argument(metavar="hf://OWNER/NAME[@REV]", help="A repository of the Hub.")] = None,
    as_name: Annotated[
        str | None, Option("--as", metavar="[NS/]NAME", help="Default: what the repository is called.")
    ] = None,
    list_file: Annotated[
        Path | None, Option("--list", metavar="FILE", help="Many: hf://OWNER/NAME[@REV] [NS/NAME], one a line.")
    ] = None,
    jobs: Annotated[int, Option(metavar="N", min=1, max=_MOST_JOBS, help="Fetched at a time, with --list.")] = 4,
    base: Annotated[
        str | None, Option(metavar="ID[@REV]|DIR", help="The base model, if the config is wrong or silent.")
    ] = None,
    adapter: Annotated[str | None, Option(metavar="SUB", help="The folder of the adapter meant.")] = None,
    alias: Annotated[list[str] | None, Option(metavar="ALIAS", help="Point this alias at the version.")] = None,
    tag: Annotated[list[str] | None, Option(metavar="K=V", help="Label the version.")] = None,
    note_text: Annotated[str | None, Option("--note", metavar="TEXT", help="Kept with the version.")] = None,
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="Store in spite of this error, on record.")] = None,
) -> None:
    """Record an adapter of the Hugging Face Hub as a version.

    It is pinned to a commit, every byte verified, and checked as a push is.

    What was imported at the same commit is not fetched again, so an interrupted --list is continued by the same command. What is
    refused of a list stops nobody else; the exit code is the gravest. Where a version came from is its label hub.source.

    Example: adapters import hf://acme/support-lora@v3 --as acme/support
    """
    if (source is None) == (list_file is None):
        raise BadParameter("give a repository, hf://OWNER/NAME, or --list FILE")
    if list_file is not None:
        if any((as_name, base, adapter, alias, tag, note_text)):
            raise BadParameter(
                "--as, --base, --adapter, --alias, --tag and --note are about one adapter, and --list about many"
            )
        _import_list(session, list_file, jobs, allow or ())
        return
    from registry.domain.tags import parse_tag

    with progress("importing", silent=session.quiet or session.json) as advance:
        done = session.registry.import_from_hub(
            source or "",
            name=as_name,
            base=base,
            adapter=adapter,
            alias=alias or (),
            tags=dict(parse_tag(text) for text in tag or ()),
            note=note_text,
            allow=allow or (),
            progress=advance,
        )
    if session.json:
        emit(done.document())
        return
    show_findings(done.findings, quiet=session.quiet)
    say(f"{done.version.reference}  {done.version.digest}")
    if not done.created:
        note(_nothing_new(done), quiet=session.quiet)


def _import_list(session: Session, file: Path, jobs: int, allow: tuple[str, ...] | list[str]) -> None:
    from registry.operations.hub_import import Imported

    done: list[Imported] = []
    refused = []
    with progress("importing", silent=session.quiet or session.json) as advance:
        for one in session.registry.import_list(file, jobs=jobs, allow=allow, progress=advance):
            if isinstance(one, Imported):
                done.append(one)
                if not session.json:
                    show_findings(one.findings, quiet=session.quiet)
                    say(f"{one.version.reference}  {one.source}{'' if one.created else f'  ({_nothing_new(one)})'}")
            else:
                refused.append(one)
                if not session.json:
                    note(f"error: {one.source}: {one.error.message}", quiet=False, style="bold red")
    if session.json:
        emit({"imported": [one.document() for one in done], "refused": [one.document() for one in refused]})
    else:
        new = sum(one.created for one in done)
        note(f"{new:,} new, {len(done) - new:,} known already, {len(refused):,} refused", quiet=session.quiet)
    if refused:
        raise Exit(gravest(one.error.exit_code for one in refused))


def _nothing_new(done: Imported) -> str:
    return "the same content was that version already" if done.fetched else "imported before; nothing was fetched"
