"""What becomes of the files that a commit leaves: a version, or the same version with other files beside it.

1. If the adapter is whole and another than the newest version's, it becomes a version, checked like any push. What is refused is
   not recorded. What an earlier version is already cannot become the newest, and is refused too.
2. Else the commit holds the files of the version that is there, with other cards or sub-folders beside them.

The version comes first and the commit second: after a crash in between the version shows its own files, and the side files of this
one upload are missing, which repeating it mends.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.api.hub_protocol.commit_body import digests_of
from registry.api.hub_protocol.errors import OlderContentError
from registry.api.hub_protocol.locks import alone
from registry.api.hub_protocol.policy import adapter_in, is_whole, lost_from, require_adapter_beside
from registry.api.hub_protocol.revisions import History, Revision
from registry.api.hub_protocol.trees import Tree, tree_bytes
from registry.domain.digest import Digest
from registry.domain.finding import Severity
from registry.errors import RejectedError
from registry.formats.adapter_directory import EVALUATIONS_FOLDER

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from registry.api.hub_protocol.announcements import Announced
    from registry.api.hub_protocol.repositories import Repository
    from registry.api.hub_protocol.services import Services
    from registry.connect import EmbeddedRegistry
    from registry.domain.version import Version
    from registry.operations.publish import Published


class IncompleteAdapterError(RejectedError):
    default_code = "incomplete-adapter"

    def __init__(self, adapter: str, path: str) -> None:
        super().__init__(
            f"{adapter} would be without its {path}, and a version keeps its files; nothing was recorded",
            hint="an adapter is replaced by another in one commit, a merged checkpoint by adapters merge --name",
        )


@dataclass(frozen=True, slots=True)
class Place:
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
class Done:
    """``id`` is the commit's as it is stored, ``shown`` as it is served; and what is to be ``said`` of it."""

    id: str
    shown: str
    said: str = ""


def finished(title: str, tree: Tree, head: Revision, place: Place) -> Done:
    """What is no draft, on ``main``; ``head`` is what it came of. Raises RejectedError and other members of InvalidInputError,
    OlderContentError."""
    repository, history = place.repository, place.history
    main = history.main
    if tree == main.tree:
        return Done(main.commit, history.served(main).commit)
    _require_kept(tree, main, place)
    if not is_whole(tree) or (main.number and adapter_in(tree) == adapter_in(main.tree)):  # 2
        return recorded(title, tree, head, main.number, place)
    published = place.registry.receive(_received(tree), name=str(repository.name))  # 1
    _require_newest(published.version, place)
    return replace(recorded(title, tree, head, published.version.number, place), said=_said(published))


def require_finishable(tree: Tree, place: Place) -> None:
    """Of a draft that awaits nothing: whoever made it is not there to hear it when it ends. Raises what :func:`finished` does."""
    history, name = place.history, place.repository.name
    _require_kept(tree, history.main, place)
    if is_whole(tree):
        digest = place.registry.received(_received(tree), name=str(name))
        known = place.registry.catalog.find_version(name, digest)
        if known is not None:
            _require_newest(known, place)


def _require_kept(tree: Tree, main: Revision, place: Place) -> None:
    require_adapter_beside(tree.keys() - main.tree.keys(), tree, place.repository.shown)
    if not is_whole(tree) and main.number and (lost := lost_from(main.tree, tree)):
        raise IncompleteAdapterError(str(place.repository.name), lost)


def _require_newest(version: Version, place: Place) -> None:
    newest = place.history.newest
    if newest is None or newest.number != version.number:
        number = newest.number if newest is not None else None
        yanked = version.yanked is not None
        raise OlderContentError(place.repository.shown, version.number, newest=number, yanked=yanked)


def recorded(title: str, tree: Tree, head: Revision, number: int, place: Place, *, draft: str = "") -> Done:
    """A commit that holds version ``number``, 0 for none. ``draft`` is the upload that it is a draft of, and of no other: of the
    same files, too. A draft that ends as it is keeps its id, which whoever made it was told."""
    history, data = place.history, tree_bytes(tree)
    listed = Digest.of(data)
    before = next((each for each in history.commits if each.id == head.commit), None)
    if before is not None and before.draft and before.tree == listed and not draft:
        commit, parent, is_new = before.id, before.parent, True
    else:
        commit, parent = _named(tree, listed, head, number, history, draft), head.commit
        is_new = commit not in {each.id for each in history.commits}
    blobs, catalog = place.registry.blobs, place.registry.catalog
    blobs.put(listed, iter((data,)))
    if is_new:
        with catalog.writing() as writer:
            for digest in (listed, *digests_of(tree)):
                blobs.size(digest)  # a collector may have run
            writer.add_commit(
                place.repository.name,
                commit=commit,
                parent=parent,
                tree=listed,
                files=digests_of(tree),
                title=title or "no title",
                number=number,
                draft=bool(draft),
            )
    made = Revision(commit, lambda: tree, number, title, place.actor, "")
    return Done(commit, commit if draft else history.served(made).commit)


def _named(tree: Tree, listed: Digest, head: Revision, number: int, history: History, draft: str) -> str:
    """The version's own name for what is nothing but the version."""
    version = history.version(number)
    own = history.of_version(version) if version is not None else None
    if own is not None and own.tree == tree and number != head.number and not draft:
        return own.commit
    facts = json.dumps([head.commit, listed, number, draft], separators=(",", ":"))
    return hashlib.sha256(facts.encode("ascii")).hexdigest()[:40]


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
