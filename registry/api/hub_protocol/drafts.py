"""Where an upload is that has not all come: a commit on record that is no part of ``main``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.api.hub_protocol.policy import adapter_in
from registry.api.hub_protocol.trees import tree_of

if TYPE_CHECKING:
    from registry.api.hub_protocol.announcements import Upload
    from registry.api.hub_protocol.revisions import History, Revision


def draft_of(upload: Upload, history: History, actor: str, main: Revision) -> Revision | None:
    """Where the actor's unfinished upload is.

    What changed beside the adapter since it began is in it too; another adapter is not, since the two would be mixed."""
    found = next((each for each in history.commits if each.id == upload.draft and each.author == actor), None)
    if found is None:
        return None
    draft = history.of_commit(found)
    base = begun_from(history, found.id)
    if base is None or adapter_in(base.tree) != adapter_in(main.tree):
        return draft
    kept = {path: entry for path, entry in main.tree.items() if path in draft.tree or path not in base.tree}
    changed = {path: entry for path, entry in draft.tree.items() if base.tree.get(path) != entry}
    merged = tree_of({**kept, **changed}.values())
    return replace(draft, listed=lambda: merged)


def begun_from(history: History, draft: str) -> Revision | None:
    by_id = {each.id: each for each in history.commits}
    parent = by_id.get(draft)
    while parent is not None and parent.draft and parent.parent in by_id:
        parent = by_id[parent.parent]
    if parent is None:
        return None
    return history.with_id(parent.parent or "") if parent.draft else history.of_commit(parent)
