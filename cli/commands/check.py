"""``adapters check``"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.engines import profile_called
from cli.exits import ending, gravest
from cli.rendering import emit, note, progress
from cli.streams import put
from registry.disk import path_of
from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.reports.checked import Checked
    from registry.checks.profile import Profile
    from registry.operations.bases import CheckedBase
    from registry.operations.check import Verdict


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    GITHUB = "github"


def check(
    session: Session,
    subjects: Annotated[
        list[str] | None,
        Argument(metavar="DIR|REF", help="Adapters' directories, files in them, or versions in the registry."),
    ] = None,
    base: Annotated[
        str | None, Option(metavar="DIR|ID", help="The base model: a checkpoint's directory, or its name.")
    ] = None,
    serve: Annotated[
        list[str] | None,
        Option(
            "--for", metavar="ENGINE[==VERSION]", help="The engine that is to serve it: vllm, sglang, … Repeatable."
        ),
    ] = None,
    max_lora_rank: Annotated[
        int | None, Option(metavar="N", help="The engine's own limit, if not its default.")
    ] = None,
    everything: Annotated[
        bool, Option("--all", help="The newest version of every adapter in the registry that was trained on the base.")
    ] = False,
    format: Annotated[Format, Option(help="What to write; --json is the same as json.")] = Format.TEXT,
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="Take this error for a warning.")] = None,
) -> None:
    """Does an adapter fit a base, and will engines serve it?

    No weights of the base are read.

    Exit codes: 0 it fits, 6 it does not, 8 the base or the method is not known well enough, 3 the adapter is broken; of several
    adapters or engines the gravest. The formats sarif, junit and github are reports for a CI, written whatever happens.

    Example: adapters check ./my-lora --base ./llama-3.1-8b --for vllm
    """
    if base is None and not serve:
        raise BadParameter("give --base, --for, or both: what shall it fit?")
    if bool(subjects) == everything:
        raise BadParameter("name the adapters to check, or say --all")
    if session.json and format not in (Format.TEXT, Format.JSON):
        raise BadParameter(f"--json or --format {format.value}: which of the two?")
    with ending(json=session.json or format is Format.JSON):
        _report(session, subjects or (), base, serve or (), max_lora_rank, format, allow or (), everything=everything)


def _report(
    session: Session,
    subjects: Sequence[str],
    base: str | None,
    serve: Sequence[str],
    max_lora_rank: int | None,
    format: Format,
    allow: Sequence[str],
    *,
    everything: bool,
) -> None:
    names = _without_files(subjects)
    profiles = [profile_called(engine, max_lora_rank) for engine in dict.fromkeys(serve) or (None,)]
    several = everything or len(subjects) > 1 or len(profiles) > 1
    written = format not in (Format.TEXT, Format.JSON)
    try:
        known = session.registry.checked_base(base) if base else None
        if everything:
            silent = format is not Format.TEXT
            found = [one for each in profiles for one in _survey(session, known, each, allow, silent=silent)]
        else:
            refuse = not several and not written
            found = [_check(session, name, known, each, allow, refuse=refuse) for name in names for each in profiles]
    except RegistryError as error:
        if not written:
            raise
        found = [_refused(name, error, is_at_fault=False) for name in names or (base or "",)]
    if not found:
        note(f"nothing was checked: the registry has no adapter{f' of {base}' if base else ''}", quiet=session.quiet)
    _write(found, Format.JSON if session.json else format, several=several, listed=everything, quiet=session.quiet)
    codes = {one.exit_code for one in found} - {0}
    if codes:
        raise Exit(gravest(codes))


def _write(found: Sequence[Checked], format: Format, *, several: bool, listed: bool, quiet: bool) -> None:
    if format is Format.JSON:
        documents = [one.document for one in found]
        emit(documents if several else documents[0])
    elif format is not Format.TEXT:
        from cli.reports.checked import tally
        from cli.reports.table import REPORTS

        put(REPORTS[format.value](found), sys.stdout)
        if format is not Format.GITHUB:  # which counts in the log itself
            note(tally(found), quiet=quiet)
    elif listed and found:
        from cli.reports.text import show_all

        show_all(found)
    else:
        from cli.reports.text import show

        said: set[str] = set()
        for one in found:
            show(one, quiet=quiet, said=said)


def _check(
    session: Session,
    subject: str,
    base: CheckedBase | None,
    profile: Profile | None,
    allow: Sequence[str],
    *,
    refuse: bool,
) -> Checked:
    """``refuse``: an error that comes before a verdict ends the command, as it does everywhere else."""
    from registry.operations.bases import is_path
    from registry.operations.check import adapter_in, check

    try:
        if base is None and is_path(subject):  # about which no registry knows more, so none is opened
            verdict = check(adapter_in(path_of(subject)), None, profile, allow=allow)
        else:
            verdict = session.registry.check(subject, base=base, engine=profile, allow=allow)
        return _checked(verdict, _directory(subject))
    except RegistryError as error:
        if refuse:
            raise
        return _refused(subject, error, base, profile)


def _survey(
    session: Session, base: CheckedBase | None, profile: Profile | None, allow: Sequence[str], *, silent: bool
) -> list[Checked]:
    with progress("checking", silent=session.quiet or session.json or silent) as advance:
        verdicts = session.registry.check_all(base=base, engine=profile, allow=allow, progress=advance)
        return [_checked(verdict, None) for verdict in verdicts]  # documents: the tables of tensors may go


def _refused(
    subject: str,
    error: RegistryError,
    base: CheckedBase | None = None,
    profile: Profile | None = None,
    *,
    is_at_fault: bool = True,
) -> Checked:
    from registry.operations.survey import refused

    directory = _directory(subject)
    name = subject if directory is None else os.path.normpath(os.path.expanduser(subject))
    return _checked(refused(name, error, base, profile, is_at_fault=is_at_fault), directory)


def _checked(verdict: Verdict, directory: str | None) -> Checked:
    from cli.reports.checked import Checked
    from registry.formats.adapter_directory import CONFIG, WEIGHTS

    about = {os.path.basename(finding.where or "") for finding in verdict.findings}
    code = verdict.failure.exit_code if verdict.failure is not None else 0
    return Checked(verdict.document(), code, directory, WEIGHTS if WEIGHTS in about else CONFIG)


def _without_files(subjects: Sequence[str]) -> list[str]:
    """What is to be checked, once each: a hook is handed files, and an adapter's two are in one directory."""
    from registry.formats.adapter_directory import CONFIG, WEIGHTS

    found: dict[str, str] = {}
    for subject in subjects:
        place, name = os.path.split(subject)
        if name in (CONFIG, WEIGHTS):
            subject = os.path.join(".", place)
        found.setdefault(os.path.normpath(subject), subject)
    return list(found.values())


def _directory(subject: str) -> str | None:
    """As a report names it: below the working directory, which in a CI is the repository's root, or absolute."""
    from registry.operations.bases import is_path

    if not is_path(subject):
        return None
    path = os.path.abspath(os.path.expanduser(subject))
    below = os.path.relpath(path)
    return path if below.split(os.sep)[0] == os.pardir else below
