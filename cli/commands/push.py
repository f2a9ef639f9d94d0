"""``adapters push``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import emit, note, progress, say, show_findings


def push(
    session: Session,
    directory: Annotated[Path, Argument(metavar="DIR", help="What PEFT's save_pretrained wrote.")],
    name: Annotated[str | None, Option(metavar="[NS/]NAME", help="Default: the directory's name, made to fit.")] = None,
    base: Annotated[
        str | None, Option(metavar="ID[@REV]", help="The base model, if the config is wrong or silent.")
    ] = None,
    alias: Annotated[list[str] | None, Option(help="Point this alias at the version.")] = None,
    tag: Annotated[list[str] | None, Option(metavar="K=V", help="Label the version.")] = None,
    eval: Annotated[list[str] | None, Option(metavar="SOURCE", help="A results file, or metric=value.")] = None,
    note_text: Annotated[str | None, Option("--note", metavar="TEXT", help="Kept with the version.")] = None,
    adapter: Annotated[str | None, Option(metavar="SUB", help="The sub-directory of the adapter meant.")] = None,
    parent: Annotated[list[str] | None, Option(metavar="REF[*WEIGHT]", help="A version it was made from.")] = None,
    parent_kind: Annotated[str, Option(metavar="KIND", help="How it was made from them.")] = "continued-from",
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="Store in spite of this error, on record.")] = None,
) -> None:
    """Store a directory as the next version of an adapter.

    Example: adapters push ./my-lora --alias staging --eval results.json
    """
    from registry.domain.tags import parse_tag

    with progress("pushing", silent=session.quiet or session.json) as advance:
        pushed = session.registry.push(
            directory,
            name=name,
            base=base,
            alias=alias or (),
            tags=dict(parse_tag(text) for text in tag or ()),
            evaluations=eval or (),
            note=note_text,
            adapter=adapter,
            parents=parent or (),
            parent_kind=parent_kind,
            allow=allow or (),
            progress=advance,
        )
    version = pushed.version
    if session.json:
        emit(
            {
                "adapter": str(version.adapter),
                "version": version.number,
                "digest": version.digest,
                "reference": version.reference,
                "created": pushed.created,
                "findings": [finding.document() for finding in pushed.findings],
            }
        )
        return
    show_findings(pushed.findings, quiet=session.quiet)
    say(f"{version.reference}  {version.digest}")
    if not pushed.created:
        note("the same content was that version already; nothing was stored", quiet=session.quiet)
