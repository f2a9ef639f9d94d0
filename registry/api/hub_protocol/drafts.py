"""Where an upload is that has not all come: a commit on record that is no part of ``main``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.api.hub_protocol.policy import makes_version
from registry.api.hub_protocol.trees import Tree, tree_of

if TYPE_CHECKING:
    from registry.api.hub_protocol.announcements import Upload
    from registry.api.hub_protocol.revisions import History, Revision


def draft_of(upload: Upload, history: History, actor: str, main: Revision) -> Revision | None:
    """Where the actor's unfinished upload is. What changed on ``main`` beside the adapter since its last part is in it too; another
    adapter is not, since the two would be mixed."""
    found = next((each for each in history.commits if each.id == upload.draft and each.author == actor), None)
    if found is None:
        return None
    draft = history.of_commit(found)
    before = history.with_id(upload.main)
    if before is None or before.commit == main.commit:
        return draft
    merged = _merged(draft.tree, before.tree, main.tree, deletes=before.number == main.number)
    return replace(draft, listed=lambda: merged)


def _merged(draft: Tree, before: Tree, main: Tree, *, deletes: bool) -> Tree:
    """A version that came otherwise lacks what was beside the one before, and nobody ``deletes`` that."""
    changed = {path for path in {*before, *main} if before.get(path) != main.get(path) and not makes_version(path)}
    gone = changed - main.keys() if deletes else set[str]()
    kept = [entry for path, entry in draft.items() if path not in gone]
    return tree_of([*kept, *(main[path] for path in sorted(changed & main.keys()))])
