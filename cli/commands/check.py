"""``adapters check``"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.rendering import emit, note, say

if TYPE_CHECKING:
    from registry.checks.profile import Profile
    from registry.operations.check import CheckedAdapter, Verdict

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
#: Findings of one rule that text shows; JSON has them all.
_SHOWN = 5


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


def check(
    session: Session,
    subject: Annotated[str, Argument(metavar="DIR|REF", help="An adapter's directory, or a version in the registry.")],
    base: Annotated[str | None, Option(metavar="DIR|ID", help="The base model: a checkpoint's directory.")] = None,
    serve: Annotated[
        str | None, Option("--for", metavar="ENGINE[==VERSION]", help="The engine that is to serve it: vllm, sglang, …")
    ] = None,
    max_lora_rank: Annotated[
        int | None, Option(metavar="N", help="The engine's own limit, if not its default.")
    ] = None,
    format: Annotated[Format, Option(help="What to write; --json is the same as json.")] = Format.TEXT,
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="Take this error for a warning.")] = None,
) -> None:
    """Does an adapter fit a base model, and will an engine serve it? No weights of the base are read.

    Exit codes: 0 it fits, 6 it does not, 8 the base is not known well enough, 3 the adapter itself is broken.

    Example: adapters check ./my-lora --base ./llama-3.1-8b --for vllm
    """
    from registry.operations.check import base_called, check

    if base is None and serve is None:
        raise BadParameter("give --base, --for, or both: what shall it fit?")
    profile = _profile(serve, max_lora_rank)
    verdict = check(_adapter(session, subject), base_called(base) if base else None, profile, allow=allow or ())
    if session.json or format is Format.JSON:
        emit(verdict.document())
    else:
        _print(verdict, quiet=session.quiet)
    if verdict.failure is not None:
        raise Exit(verdict.failure.exit_code)


def _profile(serve: str | None, max_lora_rank: int | None) -> Profile | None:
    from registry.checks.profile import find_profile, with_rank_cap

    if serve is None:
        if max_lora_rank is not None:
            raise BadParameter("--max-lora-rank is the limit of an engine: name it with --for")
        return None
    profile = find_profile(serve)
    return profile if max_lora_rank is None else with_rank_cap(profile, max_lora_rank)


def _adapter(session: Session, subject: str) -> CheckedAdapter:
    import os
    from pathlib import Path

    from registry.operations.check import adapter_in, adapter_stored

    if os.path.isdir(subject) or subject.startswith((".", "/", "~")):
        return adapter_in(Path(subject).expanduser())
    registry = session.registry
    return adapter_stored(registry.reference(subject), blobs=registry.blobs, catalog=registry.catalog)


def _print(verdict: Verdict, *, quiet: bool) -> None:
    from registry.checks.misfit import WORDS

    shown: dict[str, int] = {}
    for finding in verdict.findings:
        severity = WORDS[finding.severity]
        if severity == "note" and quiet:
            continue
        count = shown[finding.rule] = shown.get(finding.rule, 0) + 1
        if count <= _SHOWN:
            say(f"{severity}: {finding.message} [{finding.rule}]", _STYLES[severity])
            if finding.fix and severity != "note":
                say(f"  {finding.fix}", "dim")
    for rule, count in shown.items():
        if count > _SHOWN:
            say(f"… and {count - _SHOWN:,} more of {rule}; --json lists them all", "dim")
    against = " for ".join(str(part) for part in (verdict.base and verdict.base.id.raw, verdict.profile) if part)
    say(f"{verdict.subject} {_WORDS[verdict.answer.value]} {against}", "bold")
    if verdict.matched is not None:
        note(f"{verdict.matched:,} of {len(verdict.tensors):,} tensors have a place in the base", quiet=quiet)


_WORDS = {"fits": "fits", "does-not-fit": "does not fit", "cannot-check": "could not be checked against"}
