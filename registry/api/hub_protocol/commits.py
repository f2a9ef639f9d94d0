"""A commit to ``main``.

1. One at a time for an adapter, whichever worker it reaches.
2. The same request again (clients repeat it when an answer gets lost) is answered by what it did the first time.
3. The changes go on ``main``; a further part of an upload goes on what came before it, see
   :mod:`~registry.api.hub_protocol.announcements`. If that is not here any more, or another version came after it, files of an
   adapter are refused: the two would be mixed.
4. While something of the upload is missing, an adapter that it changes is a draft: on record, and shown by nobody's ``main``.
5. Else it becomes what :mod:`~registry.api.hub_protocol.recording` says, after the uploads before it that await nothing
   (:mod:`~registry.api.hub_protocol.endings`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.commit_body import Changes, read_changes
from registry.api.hub_protocol.drafts import draft_of
from registry.api.hub_protocol.endings import finish_before, finish_later
from registry.api.hub_protocol.errors import NotUploadedError, StaleParentError, StrayPartError
from registry.api.hub_protocol.policy import adapter_in, is_whole, makes_version, require_writable
from registry.api.hub_protocol.recording import Done, Place, finished, recorded, require_finishable
from registry.api.hub_protocol.revisions import History, Revision
from registry.api.hub_protocol.trees import Tree
from registry.errors import MissingBlobError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.api.hub_protocol.announcements import Announced, Upload
    from registry.api.hub_protocol.asked import Asked
    from registry.domain.commit import Commit

#: Seconds for which a commit may be repeated.
_REMEMBERED = 600.0


def commit(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    changes = read_changes(asked)
    place = Place(asked.services, asked.caller.registry, asked.caller.actor, asked.repository)
    try:
        with place.alone():  # 1
            done = _repeated(changes, place) or _commit(changes, place)
    except MissingBlobError as error:
        collected = next((entry for entry in changes.files.values() if entry.digest == error.digest), None)
        if collected is None:
            raise
        raise NotUploadedError(collected.path, collected.digest.hex) from error
    shown = asked.repository.shown
    return JSONResponse(
        {
            "success": True,
            "commitOid": done.shown,
            "commitUrl": f"{asked.address}/{shown}/commit/{done.shown}",
            "hookOutput": done.said,
        }
    )


def _commit(changes: Changes, place: Place) -> Done:
    repository, announced = place.repository, place.announced()
    upload = _upload_of(changes, announced)
    finish_before(upload, place)
    history = place.history
    main = history.main
    draft = draft_of(upload, history, place.actor, main) if upload else None
    head = draft or main  # 3
    _require_parent(changes, head, main, history, repository.shown)
    tree = changes.applied_to(head.tree, repository.shown, head.commit)
    if draft is None and _is_stray(changes, tree, upload, announced, main):
        raise StrayPartError(repository.shown, changes.title.partition("\n")[0])
    if upload is None:
        return finished(changes.title, tree, head, place)
    rest = upload.after(changes.files)
    waits = announced.awaits(rest) or _may_go_on(rest, tree)
    if waits and adapter_in(tree) != adapter_in(main.tree):  # 4
        if not (rest.left or rest.is_half):
            require_finishable(tree, place)
        done = recorded(changes.title, tree, head, 0, place, draft=rest.id)
        rest = replace(rest, draft=done.id, main=main.commit)
        if not rest.left:
            finish_later(rest.draft, place.services, place.actor, place.key)
    else:
        done = finished(changes.title, tree, head, place)
    _note(replace(rest, number=place.history.main.number), done.id, waits=waits, place=place)
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


def _note(upload: Upload, commit: str, *, waits: bool, place: Place) -> None:
    """Once the commit is on record: one that is refused is repeated, by newer clients in smaller pieces. An upload that is whole is
    kept while side files of it may come, as what they belong to."""
    ended = not (waits or upload.goes_on)
    place.services.announcements.note(place.actor, place.key, upload, ended=ended, commit=commit)


def _repeated(changes: Changes, place: Place) -> Done | None:
    """2. What a late commit of the actor did is what these changes would have done at its place. Unless main is still what they
    made of it, doing them again makes a difference: who asked again wants that, and who never asked, as for a copy."""
    history, announced = place.history, place.announced()
    upload = _upload_of(changes, announced)
    awaited = upload is not None and bool(upload.coming & changes.files.keys())
    for own in _late_commits(place):
        if own.id != history.main.commit and (awaited or own.id not in announced.commits):
            continue
        if not _did(own, changes, place):
            continue
        if upload is not None and awaited:  # the server may have died between the commit and the note
            rest = replace(upload.after(changes.files), draft=upload.draft, main=upload.main)
            _note(rest, own.id, waits=announced.awaits(rest), place=place)
        return Done(own.id, own.id if own.draft else history.served(history.of_commit(own)).commit)
    return None


def _late_commits(place: Place) -> Iterator[Commit]:
    own = (each for each in reversed(place.history.commits) if each.author == place.actor)
    return takewhile(lambda each: _age(each.at) <= _REMEMBERED, own)


def _did(own: Commit, changes: Changes, place: Place) -> bool:
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


def _age(at: str) -> float:
    """Seconds since."""
    return time.time() - datetime.fromisoformat(at).timestamp()
