"""A commit to ``main``.

1. One at a time for an adapter, whichever worker it reaches.
2. The same request again (clients repeat it when an answer gets lost) is answered by what it did the first time.
3. The changes go on ``main``; a further part of an upload goes on what came before it, see
   :mod:`~registry.api.hub_protocol.announcements`. If that is not here any more, or another version came after it, files of an
   adapter are refused: the two would be mixed.
4. While something of the upload is missing, an adapter that it changes is a draft: on record, and shown by nobody's ``main``.
5. If the adapter is whole and another than the newest version's, it becomes a version, checked like any push. What is refused is
   not recorded. What an earlier version is already cannot become the newest, and is refused too.
6. Else the commit holds the files of the version that is there, with other cards or sub-folders beside them.
7. A tool that commits in any order never says that it is done. Its draft is finished as soon as every file of the adapter came,
   or when no other was announced for a while: then those that are here already are meant to stay. Nor does an upload say it whose
   files end where an asking does. Every draft of which nothing is known to be missing is looked at then, also by a server that
   started meanwhile.

The version comes first and the commit second: after a crash in between the version shows its own files, and the side files of this
one upload are missing, which repeating it mends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from threading import Timer
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.commit_body import Changes, digests_of, read_changes
from registry.api.hub_protocol.drafts import begun_from, draft_of
from registry.api.hub_protocol.errors import OlderContentError, StaleParentError, StrayPartError
from registry.api.hub_protocol.locks import alone
from registry.api.hub_protocol.policy import (
    adapter_in,
    is_whole,
    lost_from,
    makes_version,
    require_adapter_beside,
    require_writable,
)
from registry.api.hub_protocol.repositories import Repository
from registry.api.hub_protocol.revisions import History, Revision
from registry.api.hub_protocol.trees import Tree, tree_bytes
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.domain.names import AdapterName
from registry.errors import NotFoundError, RegistryError, RejectedError, UnavailableError
from registry.formats.adapter_directory import EVALUATIONS_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from registry.api.hub_protocol.announcements import Announced, Upload
    from registry.api.hub_protocol.asked import Asked
    from registry.api.hub_protocol.services import Services
    from registry.connect import EmbeddedRegistry
    from registry.domain.commit import Commit
    from registry.operations.publish import Published

_log = logging.getLogger("adapters.server")
#: Seconds for which a commit may be repeated.
_REMEMBERED = 600.0
#: Seconds without an announcement after which a tool that says nothing of its end is taken to be done with an adapter.
QUIET = 120.0


class IncompleteAdapterError(RejectedError):
    default_code = "incomplete-adapter"

    def __init__(self, adapter: str, path: str) -> None:
        super().__init__(
            f"{adapter} would be without its {path}, and a version keeps its files; nothing was recorded",
            hint="an adapter is replaced by another in one commit, a merged checkpoint by adapters merge --name",
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """What is committed to, and by whom: ``registry`` writes under the actor's name."""

    services: Services
    registry: EmbeddedRegistry
    actor: str
    repository: Repository

    @property
    def history(self) -> History:
        return self.repository.history

    @property
    def key(self) -> str:
        return self.repository.name.key

    def announced(self) -> Announced:
        return self.services.announcements.of(self.actor, self.key)

    def alone(self) -> AbstractContextManager[None]:
        return alone(self.services.place / "locks", self.key, what=self.key)


@dataclass(frozen=True, slots=True)
class _Done:
    commit: str
    said: str = ""


def commit(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    changes = read_changes(asked)
    place = _Place(asked.services, asked.caller.registry, asked.caller.actor, asked.repository)
    with place.alone():  # 1
        done = _repeated(changes, place) or _commit(changes, place)
    shown = asked.repository.shown
    return JSONResponse(
        {
            "success": True,
            "commitOid": done.commit,
            "commitUrl": f"{asked.address}/{shown}/commit/{done.commit}",
            "hookOutput": done.said,
        }
    )


def finish_begun(services: Services) -> None:
    """What is to be done for uploads that a server before this one left: see 7."""
    for actor, adapter, announced in services.announcements.everything():
        for upload in announced.uploads:
            if upload.draft and not upload.left:
                _finish_later(upload.draft, upload.at + QUIET - time.time(), services, actor, adapter)


def _commit(changes: Changes, place: _Place) -> _Done:
    repository, history, announced = place.repository, place.history, place.announced()
    main = history.main
    upload = _upload_of(changes, announced)
    draft = draft_of(upload, history, place.actor, main) if upload else None
    head = draft or main  # 3
    _require_parent(changes, head, main, history, repository.shown)
    tree = changes.applied_to(head.tree, repository.shown, head.commit)
    if draft is None and _is_stray(changes, tree, upload, announced, main):
        raise StrayPartError(repository.shown, changes.title.partition("\n")[0])
    if upload is None:
        return _finished(changes, tree, head, place)
    rest = upload.after(changes.files)
    adapter = adapter_in(tree)
    waits = announced.awaits(rest) or _may_go_on(rest, tree)
    if waits and adapter != adapter_in(main.tree):  # 4
        done = _recorded(changes, tree, head, main.number, place, draft=rest.id)
        rest = replace(rest, draft=done.commit)
        if not rest.left:
            _finish_later(done.commit, QUIET, place.services, place.actor, place.key)  # 7
    else:
        done = _finished(changes, tree, head, place)
    _note(replace(rest, number=place.history.main.number), waits=waits, place=place)
    return done


def _may_go_on(upload: Upload, tree: Tree) -> bool:
    """Whether nothing says that it is done: a tool that commits in any order has not brought an adapter, or not all of what is
    there by now."""
    if upload.scattered:
        return not is_whole(tree) or bool(adapter_in(tree).keys() - upload.came)
    return upload.is_open


def _is_stray(changes: Changes, tree: Tree, upload: Upload | None, announced: Announced, main: Revision) -> bool:
    """Whether it goes on with something that is neither a draft nor what main is. A tool that commits in any order would repeat
    for ever what is refused."""
    if changes.is_scattered:
        return False
    if upload is not None and upload.draft:  # a version that it went on from was deleted, or a collector took it
        return True
    if adapter_in(tree) == adapter_in(main.tree):
        return False
    begun = upload is not None and upload.id in {each.id for each in announced.uploads}
    if upload is None or not begun:
        return changes.is_part
    return any(makes_version(path) for path in upload.came) and upload.number != main.number


def _upload_of(changes: Changes, announced: Announced) -> Upload | None:
    return announced.upload_of(
        changes.files, title=changes.summary, part=changes.is_part, scattered=changes.is_scattered
    )


def _note(upload: Upload, *, waits: bool, place: _Place) -> None:
    """Once the commit is on record: one that is refused is repeated, by newer clients in smaller pieces. An upload that is whole is
    kept while side files of it may come, as what they belong to."""
    goes_on = not upload.scattered and (upload.coming or upload.is_open)
    place.services.announcements.note(place.actor, place.key, upload, ended=not (waits or goes_on))


def _finished(changes: Changes, tree: Tree, head: Revision, place: _Place) -> _Done:
    """What is no draft."""
    repository, history = place.repository, place.history
    main = history.main
    if tree == main.tree:
        return _Done(history.served(main).commit)
    require_adapter_beside(tree.keys() - main.tree.keys(), tree, repository.shown)
    if not is_whole(tree) and main.number and (lost := lost_from(main.tree, tree)):
        raise IncompleteAdapterError(str(repository.name), lost)
    if not is_whole(tree) or (main.number and adapter_in(tree) == adapter_in(main.tree)):  # 6
        return _recorded(changes, tree, head, main.number, place)
    published = place.registry.receive(_received(tree), name=str(repository.name))  # 5
    history, number, said = place.history, published.version.number, _said(published)
    if history.newest is None or history.newest.number != number:
        newest = history.newest.number if history.newest else None
        yanked = published.version.yanked is not None
        raise OlderContentError(repository.shown, number, newest=newest, yanked=yanked)
    return replace(_recorded(changes, tree, head, number, place), said=said)


def _finish_later(draft: str, seconds: float, services: Services, actor: str, adapter: str) -> None:
    timer = Timer(max(0.0, seconds), _finish, (draft, services, actor, adapter))
    timer.daemon = True
    timer.start()


def _finish(draft: str, services: Services, actor: str, adapter: str) -> None:
    """7. Unless the upload went on, or another adapter came meanwhile, which it would be mixed with."""
    try:
        known = services.registry.catalog.find_adapter(AdapterName.parse(adapter))
        if known is None:
            return
        place = _Place(services, services.registry.acting(actor), actor, Repository(known, adapter, services.histories))
        with place.alone():
            announced, history = place.announced(), place.history
            upload = next((each for each in announced.uploads if each.draft == draft), None)
            if upload is None:
                return
            if announced.awaits(upload):
                _finish_later(draft, QUIET, services, actor, adapter)
                return
            head, base = draft_of(upload, history, actor, history.main), begun_from(history, draft)
            if head is not None and base is not None and adapter_in(base.tree) == adapter_in(history.main.tree):
                _finished(Changes(title=head.title), head.tree, head, place)
                upload = replace(upload, number=place.history.main.number)
            else:
                _log.warning("the end of an upload to %s: another adapter came meanwhile", adapter)
            _note(replace(upload, draft=""), waits=False, place=place)
    except UnavailableError:
        _finish_later(draft, QUIET, services, actor, adapter)
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", adapter, error.message)


def _recorded(changes: Changes, tree: Tree, head: Revision, number: int, place: _Place, *, draft: str = "") -> _Done:
    """``draft`` is the upload that it is a draft of, and of no other: of the same files, too."""
    history, data = place.history, tree_bytes(tree)
    listed = Digest.of(data)
    version = history.version(number)
    own = history.of_version(version) if version is not None else None
    facts = [head.commit, listed, number, draft]
    fresh = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode("ascii")).hexdigest()[:40]
    made = own is not None and own.tree == tree and number != head.number and not draft
    commit = own.commit if own is not None and made else fresh
    blobs, catalog = place.registry.blobs, place.registry.catalog
    blobs.put(listed, iter((data,)))
    if commit not in {each.id for each in history.commits}:
        with catalog.writing() as writer:
            for digest in (listed, *digests_of(tree)):
                blobs.size(digest)  # a collector may have run
            writer.add_commit(
                place.repository.name,
                commit=commit,
                parent=head.commit,
                tree=listed,
                files=digests_of(tree),
                title=changes.title or "no title",
                number=number,
                draft=bool(draft),
            )
    recorded = Revision(commit, lambda: tree, number, changes.title, place.actor, "")
    return _Done(commit if draft else history.served(recorded).commit)


def _repeated(changes: Changes, place: _Place) -> _Done | None:
    """2. What a late commit of the actor did is what these changes would have done at its place. Who asked again wants them done
    again, which makes a difference unless main is still what they made of it."""
    history, upload = place.history, _upload_of(changes, place.announced())
    awaited = upload is not None and bool(upload.coming & changes.files.keys())
    for own in _late_commits(place):
        is_main = own.id == history.main.commit
        if not is_main and (awaited or not changes.files):
            continue
        if not _did(own, changes, place):
            continue
        if upload is not None and awaited:  # the server may have died between the commit and the note
            rest = upload.after(changes.files, draft=upload.draft)
            _note(rest, waits=place.announced().awaits(rest), place=place)
        return _Done(own.id if own.draft else history.served(history.of_commit(own)).commit)
    return None


def _late_commits(place: _Place) -> Iterator[Commit]:
    own = (each for each in reversed(place.history.commits) if each.author == place.actor)
    return takewhile(lambda each: _age(each.at) <= _REMEMBERED, own)


def _did(own: Commit, changes: Changes, place: _Place) -> bool:
    before = place.history.with_id(own.parent or "")
    if before is None or own.title.partition("\n")[0] != (changes.title or "no title").partition("\n")[0]:
        return False
    try:
        tree = changes.applied_to(before.tree, place.repository.shown, before.commit)
    except NotFoundError:
        return False
    return tree == place.history.of_commit(own).tree


def _require_parent(changes: Changes, head: Revision, main: Revision, history: History, shown: str) -> None:
    names = {head.commit, main.commit, history.served(main).commit}
    if changes.parent is not None and not any(name.startswith(changes.parent) for name in names):
        raise StaleParentError(shown, changes.parent, history.served(main).commit)


def _received(tree: Tree) -> dict[str, Digest]:
    """What a directory handed in by ``adapters push`` would show of itself."""
    return {
        path: entry.digest
        for path, entry in tree.items()
        if "/" not in path or path.startswith(f"{EVALUATIONS_FOLDER}/")
    }


def _said(published: Published) -> str:
    found = [each for each in published.findings if each.severity is not Severity.INFO]
    return "\n".join(f"{each.severity}: {each.message} [{each.rule}]" for each in found)


def _age(at: str) -> float:
    """Seconds since."""
    return time.time() - datetime.fromisoformat(at).timestamp()
