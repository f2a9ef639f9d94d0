"""``adapters tag set|rm``"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from cli.context import Session
from cli.rendering import emit, pairs, say

if TYPE_CHECKING:
    from registry.domain.version import Version

_REF = Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")


def set_(
    session: Session,
    reference: Annotated[str, _REF],
    tags: Annotated[list[str], Argument(metavar="K=V", help="Labels; an old value is replaced.")],
) -> None:
    """Label a version.

    Example: adapters tag set my-lora@3 customer=acme language=de
    """
    from registry.domain.tags import parse_tag

    _print(session, session.registry.set_tags(reference, dict(parse_tag(tag) for tag in tags)))


def rm(
    session: Session,
    reference: Annotated[str, _REF],
    keys: Annotated[list[str], Argument(metavar="K", help="Keys of the labels.")],
) -> None:
    """Take labels off a version.

    Example: adapters tag rm my-lora@3 language
    """
    _print(session, session.registry.remove_tags(reference, *keys))


def _print(session: Session, version: Version) -> None:
    if session.json:
        emit({"reference": version.reference, "tags": dict(version.tags)})
        return
    say(version.reference)
    pairs(version.tags.items())


VERBS: dict[str, Callable[..., None]] = {"set": set_, "rm": rm}
