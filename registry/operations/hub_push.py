"""A parcel becomes a commit of a repository on the Hub, and the version a tag there.

1. Look: is the repository there, where is ``main``, and does the tag stand already? What stands is left alone if it is this
   very content, and refused if it is not.
2. Find what ``main`` lacks and what it has too many. Nothing? Then ``main`` is the commit.
3. Commit once, on top of what was looked at. Whether a commit without an answer arrived is looked up before it is sent again;
   what others committed meanwhile is never overwritten.
4. Ask the Hub what it holds now, and hold that against what was sent.
5. Tag; or, where the Hub numbers versions itself, find out which it is.

A hub that keeps versions may answer a commit with a version that it has: then nothing was committed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.catalog.protocol import Catalog
from registry.domain.finding import Finding
from registry.domain.names import Reference
from registry.domain.version import Version
from registry.errors import ConflictError, CorruptionError, NotFoundError, UnavailableError
from registry.formats.adapter_directory import CONFIG
from registry.hub.protocol import Change, Hub, OutgoingFile, RemoteRevision
from registry.operations.hub_address import HubAddress
from registry.operations.parcel import CARD, Parcel

#: The label that says where a version was last sent: ``hf://OWNER/NAME@COMMIT``. The audit keeps where it was sent before.
PUSHED = "hub.pushed"
#: The Hub's own, which says what it keeps in large-file storage.
_ATTRIBUTES = ".gitattributes"
_ATTEMPTS = 3

_NUMBERED = re.compile(r"v[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sent:
    """``commit`` is None where nothing was sent (``dry_run``) and something would have to be."""

    name: str
    repository: str
    commit: str | None
    tag: str | None
    private: bool
    created: bool
    added: tuple[str, ...]
    deleted: tuple[str, ...]
    files: tuple[OutgoingFile, ...]
    findings: tuple[Finding, ...]
    dry_run: bool = False

    def document(self) -> dict[str, object]:
        """``push --to --json``. Keys are only ever added."""
        return {
            "name": self.name,
            "repository": self.repository,
            "commit": self.commit,
            "tag": self.tag,
            "private": self.private,
            "created": self.created,
            "added": list(self.added),
            "deleted": list(self.deleted),
            "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files],
            "dry_run": self.dry_run,
            "findings": [finding.document() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class _Difference:
    adds: tuple[OutgoingFile, ...]
    deletes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.adds and not self.deletes


def push_to_hub(
    parcel: Parcel,
    repository: str,
    *,
    hub: Hub,
    private: bool | None = None,
    force: bool = False,
    dry_run: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Sent:
    """``private`` is about a repository that is made for this; None means yes, and leaves one that is there as it is.
    ``force`` moves a tag, and replaces what is no adapter. ``pause`` takes seconds.

    Raises ConflictError with nothing sent, DeniedError, UnavailableError, CorruptionError where the Hub holds other bytes.
    """
    head = _look_up(hub, repository)  # 1
    if dry_run and head is not None:  # else the first thing that is sent is refused
        hub.require_writable(repository)
    _refuse_visibility(head, private, repository)
    tags = hub.tags(repository) if head is not None else {}
    standing = _standing(parcel, repository, tags, hub, force=force)
    is_new = head is None
    is_private = head.private if head is not None else private is not False

    def sent(commit: str | None, difference: _Difference, tag: str | None = parcel.tag) -> Sent:
        return Sent(
            parcel.name,
            repository,
            commit,
            tag,
            is_private,
            is_new,
            tuple(file.path for file in difference.adds),
            difference.deletes,
            parcel.files,
            parcel.findings,
            dry_run,
        )

    if standing is not None:
        return sent(standing, _Difference((), ()))
    if head is None:
        if dry_run:
            return sent(None, _Difference(parcel.files, ()))
        hub.create(repository, private=is_private)
        head = hub.look_up(repository)
    difference = _difference(parcel, head, hub)  # 2
    if not force and not is_new:
        _refuse_other_files(repository, head, difference)
    if dry_run:
        return sent(head.commit if difference.is_empty else None, difference)
    commit = head.commit
    if not difference.is_empty:
        commit = _commit(parcel, head, difference, hub, pause)  # 3
        _prove(parcel, repository, commit, hub)  # 4
        if commit in tags.values():
            difference = _Difference((), ())
    return sent(commit, difference, _tag(parcel, repository, commit, hub))  # 5


def record_push(version: Version, sent: Sent, catalog: Catalog) -> None:
    """Where the version was sent, as a label of it: nothing is written where that is known."""
    if sent.commit is None or sent.dry_run:
        return
    where = str(HubAddress(sent.repository, sent.commit))
    if version.tags.get(PUSHED) != where:
        with catalog.writing() as writer:
            now = writer.resolve(Reference(version.adapter, number=version.number))
            writer.set_tags(now, {PUSHED: where})


def _look_up(hub: Hub, repository: str) -> RemoteRevision | None:
    try:
        return hub.look_up(repository)
    except NotFoundError:
        return None


def _refuse_visibility(head: RemoteRevision | None, private: bool | None, repository: str) -> None:
    if head is not None and private is not None and head.private != private:
        is_now, asked = ("private", "--public") if head.private else ("public", "--private")
        raise ConflictError(
            f"hf://{repository} is {is_now}, and a push does not change that",
            code="other-visibility",
            hint=f"leave {asked} away, or change it in the repository's settings",
        )


def _standing(parcel: Parcel, repository: str, tags: Mapping[str, str], hub: Hub, *, force: bool) -> str | None:
    """The commit that the tag stands at already with this content. Raises ConflictError for other content."""
    if parcel.tag is None or parcel.tag not in tags or force:
        return None
    tagged = hub.look_up(repository, tags[parcel.tag])
    if _difference(parcel, tagged, hub).is_empty:
        return tagged.commit
    raise ConflictError(
        f"hf://{repository} has a {parcel.tag} with other files, at {tagged.commit[:12]}; nothing was sent",
        code="tag-exists",
        hint="the card changes with every new score; --force commits what is here and moves the tag",
    )


def _difference(parcel: Parcel, head: RemoteRevision, hub: Hub) -> _Difference:
    adds = _other(parcel, head.repository, head.commit, hub)
    ours = {file.path for file in parcel.files}
    return _Difference(adds, tuple(path for path in sorted(head.paths) if path not in ours and path != _ATTRIBUTES))


def _refuse_other_files(repository: str, head: RemoteRevision, difference: _Difference) -> None:
    """What a repository without an adapter holds is somebody's work."""
    others = [path for path in difference.deletes if path != CARD and not path.startswith("LICENSE")]
    if others and CONFIG not in head.paths:
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        raise ConflictError(
            f"hf://{repository} holds no adapter but {', '.join(map(repr, others[:3]))}{more}, which would be deleted",
            code="other-repository",
            hint="give another repository; or --force, if that may go",
        )


def _commit(
    parcel: Parcel, head: RemoteRevision, difference: _Difference, hub: Hub, pause: Callable[[float], None]
) -> str:
    change = Change(difference.adds, difference.deletes, parcel.title, parcel.description)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return hub.commit(head.repository, change, parent=head.commit)
        except (UnavailableError, ConflictError) as error:
            pause(float(attempt))
            now = hub.look_up(head.repository)
            if now.commit != head.commit:
                if _difference(parcel, now, hub).is_empty:
                    return now.commit
                raise ConflictError(
                    f"hf://{head.repository} is at {now.commit[:12]} meanwhile, with other files than were to be sent",
                    code="hub-moved",
                    hint="look at what came, and from whom, then push again",
                ) from error
            if isinstance(error, ConflictError) or attempt == _ATTEMPTS:
                raise
    raise AssertionError  # the last attempt returns or raises


def _prove(parcel: Parcel, repository: str, commit: str, hub: Hub) -> None:
    wrong = [file.path for file in _other(parcel, repository, commit, hub)]
    if wrong:
        raise CorruptionError(
            f"hf://{repository}@{commit[:12]} does not hold what was sent: {', '.join(map(repr, wrong[:3]))}",
            code="hub-altered",
            hint="push again; if it stays so, something between here and the Hub changes files",
        )


def _other(parcel: Parcel, repository: str, commit: str, hub: Hub) -> tuple[OutgoingFile, ...]:
    """The files that a commit lacks, or has with other bytes."""
    there = hub.files(repository, commit, [file.path for file in parcel.files])
    return tuple(file for file in parcel.files if file.path not in there or not there[file.path].is_same(file))


def _tag(parcel: Parcel, repository: str, commit: str, hub: Hub) -> str | None:
    """The tag under which the commit stands now."""
    tags = hub.tags(repository)
    if parcel.tag is None:
        return next((name for name, target in tags.items() if target == commit and _NUMBERED.fullmatch(name)), None)
    if tags.get(parcel.tag) != commit:
        if parcel.tag in tags:
            hub.remove_tag(repository, parcel.tag)
        hub.add_tag(repository, parcel.tag, commit)
    return parcel.tag
