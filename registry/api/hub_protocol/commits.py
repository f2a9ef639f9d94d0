"""A commit to ``main``.

1. One at a time for an adapter, whichever worker it reaches.
2. The same request again (clients repeat it when an answer gets lost) is answered by what it did the first time.
3. The changes go on ``main``; a further part of an upload goes on what came before it, see
   :mod:`~registry.api.hub_protocol.announcements`.
4. While something of the upload is missing, an adapter that it changes is a draft: on record, and shown by nobody's ``main``.
5. If the adapter is whole and another than the newest version's, it becomes a version, checked like any push. What is refused is
   not recorded. What an earlier version is already cannot become the newest, and is refused too.
6. Else the commit holds the files of the version that is there, with other cards or sub-folders beside them.
7. A tool that commits in any order never says that it is done. Its draft is finished as soon as every file of the adapter came,
   or when no other was announced for a while: then those that are here already are meant to stay.

The version comes first and the commit second: after a crash in between the version shows its own files, and the side files of this
one upload are missing, which repeating it mends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.commit_body import Changes, digests_of, read_changes
from registry.api.hub_protocol.errors import OlderContentError, StaleParentError
from registry.api.hub_protocol.policy import adapter_in, is_whole, lost_from, require_adapter_beside, require_writable
from registry.api.hub_protocol.revisions import History, Revision
from registry.api.hub_protocol.trees import Tree, tree_bytes, tree_of
from registry.disk import make_directory, unavailable
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.errors import NotFoundError, RegistryError, RejectedError, UnavailableError
from registry.formats.adapter_directory import EVALUATIONS_FOLDER

if TYPE_CHECKING:
    from registry.api.hub_protocol.announcements import Upload
    from registry.api.hub_protocol.asked import Asked
    from registry.operations.publish import Published

_log = logging.getLogger("adapters.server")
_PATIENCE = 120.0
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


def commit(asked: Asked) -> Response:
    require_writable(asked.repository, asked.params["revision"], asked)
    changes = read_changes(asked)
    with _alone(asked.services.place / "locks", asked.repository.name.key):  # 1
        done = _repeated(changes, asked) or _commit(changes, asked)
    shown = asked.repository.shown
    return JSONResponse(
        {
            "success": True,
            "commitOid": done.commit,
            "commitUrl": f"{asked.address}/{shown}/commit/{done.commit}",
            "hookOutput": done.said,
        }
    )


@dataclass(frozen=True, slots=True)
class _Done:
    commit: str
    said: str = ""


def _commit(changes: Changes, asked: Asked) -> _Done:
    repository, history = asked.repository, asked.repository.history
    main, actor = history.main, asked.caller.actor
    upload = _upload_of(changes, asked)
    head = (_draft_of(upload, history, actor, main) if upload else None) or main  # 3
    _require_parent(changes, head, main, history, repository.shown)
    tree = changes.applied_to(head.tree, repository.shown, head.commit)
    if upload is None:
        return _finished(changes, tree, head, asked)
    rest = upload.after(changes.files)
    adapter = adapter_in(tree)
    waits = bool(rest.awaited or (changes.is_scattered and adapter.keys() - rest.came))
    if waits and adapter != adapter_in(main.tree):  # 4
        done = _recorded(changes, tree, head, main.number, history, asked, draft=True)
        rest = replace(rest, draft=done.commit)
        if changes.is_scattered and not rest.left:
            _finish_later(done.commit, asked)  # 7
    else:
        done = _finished(changes, tree, head, asked)
    _note(upload, rest if waits else None, changes, asked)
    return done


def _upload_of(changes: Changes, asked: Asked) -> Upload | None:
    announcements, actor, key = asked.services.announcements, asked.caller.actor, asked.repository.name.key
    if changes.is_scattered:
        return announcements.scattered(actor, key)
    return announcements.upload_of(actor, key, changes.files, continued=changes.is_continued)


def _note(before: Upload, after: Upload | None, changes: Changes, asked: Asked) -> None:
    """Once the commit is on record: one that is refused is repeated, by newer clients in smaller pieces."""
    announcements, actor, key = asked.services.announcements, asked.caller.actor, asked.repository.name.key
    if changes.is_scattered:
        announcements.put_all(actor, key, after)
    else:
        announcements.put(actor, key, before, after)


def _finished(changes: Changes, tree: Tree, head: Revision, asked: Asked) -> _Done:
    """What is no draft."""
    repository, history = asked.repository, asked.repository.history
    main = history.main
    if tree == main.tree:
        return _Done(history.served(main).commit)
    require_adapter_beside(tree.keys() - main.tree.keys(), tree, repository.shown)
    if not is_whole(tree) and main.number and (lost := lost_from(main.tree, tree)):
        raise IncompleteAdapterError(str(repository.name), lost)
    if not is_whole(tree) or (main.number and adapter_in(tree) == adapter_in(main.tree)):  # 6
        return _recorded(changes, tree, head, main.number, history, asked)
    published = asked.caller.registry.receive(_received(tree), name=str(repository.name))  # 5
    history, number, said = repository.history, published.version.number, _said(published)
    if history.newest is None or history.newest.number != number:
        newest = history.newest.number if history.newest else None
        yanked = published.version.yanked is not None
        raise OlderContentError(repository.shown, number, newest=newest, yanked=yanked)
    return replace(_recorded(changes, tree, head, number, history, asked), said=said)


def _finish_later(draft: str, asked: Asked) -> None:
    timer = Timer(QUIET, _finish, (draft, asked))
    timer.daemon = True
    timer.start()


def _finish(draft: str, asked: Asked) -> None:
    """7. Unless the upload went on, or another adapter came meanwhile, which it would be mixed with."""
    announcements, actor, key = asked.services.announcements, asked.caller.actor, asked.repository.name.key
    try:
        with _alone(asked.services.place / "locks", key):
            upload, history = announcements.scattered(actor, key), asked.repository.history
            head = _draft_of(upload, history, actor, history.main)
            base = _begun_from(history, draft)
            if upload.draft != draft or upload.left or head is None or base is None:
                return
            if adapter_in(base.tree) == adapter_in(history.main.tree):
                _finished(Changes(title=head.title), head.tree, head, asked)
            announcements.put_all(actor, key, None)
    except RegistryError as error:
        _log.warning("the end of an upload to %s: %s", asked.repository.shown, error.message)


def _recorded(
    changes: Changes, tree: Tree, head: Revision, number: int, history: History, asked: Asked, *, draft: bool = False
) -> _Done:
    data = tree_bytes(tree)
    listed = Digest.of(data)
    version = history.version(number)
    own = history.of_version(version) if version is not None else None
    facts = [head.commit, listed, number, draft]
    fresh = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode("ascii")).hexdigest()[:40]
    made = own is not None and own.tree == tree and number != head.number and not draft
    commit = own.commit if own is not None and made else fresh
    blobs, catalog = asked.caller.registry.blobs, asked.caller.registry.catalog
    blobs.put(listed, iter((data,)))
    if commit not in {each.id for each in history.commits}:
        with catalog.writing() as writer:
            for digest in (listed, *digests_of(tree)):
                blobs.size(digest)  # a collector may have run
            writer.add_commit(
                asked.repository.name,
                commit=commit,
                parent=head.commit,
                tree=listed,
                files=digests_of(tree),
                title=changes.title or "no title",
                number=number,
                draft=draft,
            )
    recorded = Revision(commit, lambda: tree, number, changes.title, asked.caller.actor, "")
    return _Done(commit if draft else history.served(recorded).commit)


def _draft_of(upload: Upload, history: History, actor: str, main: Revision) -> Revision | None:
    """Where the actor's unfinished upload is.

    What changed beside the adapter since it began is in it too; another adapter is not, since the two would be mixed."""
    found = next((each for each in history.commits if each.id == upload.draft and each.author == actor), None)
    if found is None:
        return None
    draft = history.of_commit(found)
    base = _begun_from(history, found.id)
    if base is None or adapter_in(base.tree) != adapter_in(main.tree):
        return draft
    kept = {path: entry for path, entry in main.tree.items() if path in draft.tree or path not in base.tree}
    changed = {path: entry for path, entry in draft.tree.items() if base.tree.get(path) != entry}
    merged = tree_of({**kept, **changed}.values())
    return replace(draft, listed=lambda: merged)


def _begun_from(history: History, draft: str) -> Revision | None:
    by_id = {each.id: each for each in history.commits}
    parent = by_id.get(draft)
    while parent is not None and parent.draft and parent.parent in by_id:
        parent = by_id[parent.parent]
    if parent is None:
        return None
    return history.with_id(parent.parent or "") if parent.draft else history.of_commit(parent)


def _repeated(changes: Changes, asked: Asked) -> _Done | None:
    """2. What the actor's last commit did is what these changes would have done at its place."""
    history, shown = asked.repository.history, asked.repository.shown
    own = [each for each in history.commits if each.author == asked.caller.actor]
    if not own or _age(own[-1].at) > _REMEMBERED:
        return None
    last = history.of_commit(own[-1])
    before = history.with_id(own[-1].parent or "")
    if before is None or last.title.partition("\n")[0] != (changes.title or "no title").partition("\n")[0]:
        return None
    try:
        same = changes.applied_to(before.tree, shown, before.commit) == last.tree
    except NotFoundError:
        return None
    if same and own[-1].draft:
        _note_again(last.commit, changes, asked)
        return _Done(last.commit)
    return _Done(history.served(last).commit) if same and last.commit == history.main.commit else None


def _note_again(draft: str, changes: Changes, asked: Asked) -> None:
    """The server may have died between the commit and the note."""
    upload = _upload_of(changes, asked)
    if upload is not None and not asked.services.announcements.has_draft(
        asked.caller.actor, asked.repository.name.key, draft
    ):
        _note(upload, upload.after(changes.files, draft=draft), changes, asked)


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


@contextmanager
def _alone(place: Path, key: str) -> Iterator[None]:
    """Raises UnavailableError if others do not finish."""
    path = place / hashlib.sha256(key.encode()).hexdigest()
    try:
        make_directory(place)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable(error, "lock an adapter", path) from error
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"others are committing to {key}", hint="try again") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
