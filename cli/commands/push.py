"""``adapters push``"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import emit, note, progress, say, show_findings
from registry.errors import InvalidInputError, InvalidNameError, NotFoundError

if TYPE_CHECKING:
    from registry.operations.hub_push import Sent

_HUB = "To the Hugging Face Hub"


def push(
    session: Session,
    directory: Annotated[
        str, Argument(metavar="DIR|REF", help="What PEFT's save_pretrained wrote; with --to also a version.")
    ],
    name: Annotated[str | None, Option(metavar="[NS/]NAME", help="Default: the directory's name, made to fit.")] = None,
    base: Annotated[
        str | None, Option(metavar="ID[@REV]|DIR", help="The base model, if the config is wrong or silent.")
    ] = None,
    alias: Annotated[list[str] | None, Option(metavar="ALIAS", help="Point this alias at the version.")] = None,
    tag: Annotated[list[str] | None, Option(metavar="K=V", help="Label the version.")] = None,
    eval: Annotated[list[str] | None, Option(metavar="SOURCE", help="A results file, or metric=value.")] = None,
    note_text: Annotated[str | None, Option("--note", metavar="TEXT", help="Kept with the version.")] = None,
    adapter: Annotated[str | None, Option(metavar="SUB", help="The sub-directory of the adapter meant.")] = None,
    parent: Annotated[
        list[str] | None, Option(metavar="REF[=WEIGHT]", help="A version it was made from; REF*WEIGHT is the same.")
    ] = None,
    parent_kind: Annotated[
        str,
        Option(
            metavar="KIND",
            help="How it was made from them, in your words: continued-from, combined-from, distilled-from, …",
        ),
    ] = "continued-from",
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="Store in spite of this error, on record.")] = None,
    to: Annotated[
        str | None, Option(metavar="hf://OWNER/NAME", rich_help_panel=_HUB, help="Send it to the Hub instead.")
    ] = None,
    private: Annotated[
        bool | None,
        Option(
            "--private/--public",
            rich_help_panel=_HUB,
            help="Who may see a repository that is made for it. Default: --private; one that is there stays as it is.",
        ),
    ] = None,
    force: Annotated[
        bool, Option("--force", rich_help_panel=_HUB, help="Move the tag, and replace what is no adapter.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", rich_help_panel=_HUB, help="Say what would be sent.")] = False,
) -> None:
    """Store a directory as the next version of an adapter.

    With --to, send a directory or a version to the Hugging Face Hub instead.

    To the Hub go the served files, with a model card and without paths of this machine: one commit, which replaces what is
    there, and a tag vN for a version. The same content again is the same commit. Endpoint and token are the hf command's.

    Example: adapters push ./my-lora --alias staging --eval results.json
    """
    if to is not None:
        if any((name, alias, tag, eval, note_text, parent)):
            raise BadParameter(
                "--name, --alias, --tag, --eval, --note and --parent are kept in a registry: push there first"
            )
        _send(session, directory, to, base, adapter, allow or [], private, force=force, dry_run=dry_run)
        return
    if private is not None or force or dry_run:
        raise BadParameter("--private, --public, --force and --dry-run are about a push --to the Hub")
    from registry.domain.lineage import parse_parent
    from registry.domain.tags import parse_tag

    _require_no_version(session, directory)
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
            parents=[parse_parent(text) for text in parent or ()],
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


def _require_no_version(session: Session, directory: str) -> None:
    """Raises InvalidInputError for what is stored already, and no directory."""
    from registry.operations.bases import is_path

    if is_path(directory):
        return
    with suppress(NotFoundError, InvalidNameError):
        version = session.registry.resolve(directory)
        raise InvalidInputError(
            f"{directory} is a version in the registry, {version.reference}, and no directory to store",
            code="not-a-directory",
            hint=f"adapters push {directory} --to hf://OWNER/NAME sends it to the Hub; a directory of this name: ./{directory}",
        )


def _send(
    session: Session,
    subject: str,
    to: str,
    base: str | None,
    adapter: str | None,
    allow: list[str],
    private: bool | None,
    *,
    force: bool,
    dry_run: bool,
) -> None:
    sent = session.registry.push_to_hub(
        subject, to, private=private, base=base, adapter=adapter, allow=allow, force=force, dry_run=dry_run
    )
    if session.json:
        emit(sent.document())
        return
    show_findings(sent.findings, quiet=session.quiet)
    for path in sent.added:
        note(f"+ {path}", quiet=session.quiet)
    for path in sent.deleted:
        note(f"- {path}", quiet=session.quiet)
    say(_outcome(sent))
    if sent.dry_run:
        note("nothing was sent: this was a dry run", quiet=session.quiet)
    elif not sent.added and not sent.deleted:
        note("the same content was there already; nothing was committed", quiet=session.quiet)


def _outcome(sent: Sent) -> str:
    where = f"hf://{sent.repository}@{sent.tag or (sent.commit or 'main')[:12]}"
    made = (
        f", {'to be made' if sent.dry_run else 'made'} {'private' if sent.private else 'public'}"
        if sent.created
        else ""
    )
    return f"{sent.name} → {where}  (commit {(sent.commit or 'to come')[:12]}{made})"
