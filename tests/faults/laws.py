"""What holds after any fault, as sentences about what does not.

1. ``doctor --deep`` finds nothing.
2. Acknowledged = visible, bit for bit; what was not acknowledged is visible as a whole or not at all.
3. The same command succeeds when it is run again, and has its first effect: no number is lost.
4. After the next collection nothing is left of what was killed: staging, journal and store hold what the catalog names.
5. (thorough) Rebuilt from the journal, at once or after all that, the catalog shows the same.
6. Where a command failed instead of dying, it said so by exit code 8, and wrote nothing: blobs, rows, audit, staging.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from registry.errors import RegistryError
from tests.faults.acts import ACTS
from tests.faults.holdings import Holdings, files_below, holdings, open_registry, same_files, visible
from tests.faults.scenes import Scene, Stage
from tests.faults.server import Outcome

UNAVAILABLE = 8


def violations(stage: Stage, scene: Scene, work: Path, outcome: Outcome, *, thorough: bool = False) -> list[str]:
    """Laws 1 to 5. Uses ``work`` up."""
    try:
        found = list(_violations(stage, scene, work, outcome, thorough=thorough))
    except RegistryError as error:
        return [f"a reader or a second run was refused: {error.message}"]
    if not found:
        shutil.rmtree(work)
    return found


def _violations(stage: Stage, scene: Scene, work: Path, outcome: Outcome, *, thorough: bool) -> Iterator[str]:
    root = work / "registry"
    if thorough and any((root / "journal").rglob("*.jsonl")):
        yield from (f"rebuilt at once: {each}" for each in _rebuilt(stage, scene, work, outcome))
    yield from damage(root)  # 1
    yield from _visible_is_acknowledged(stage, scene, root, outcome)  # 2
    if thorough:
        yield from _pulled_as_pushed(stage, scene, root)
    yield from _pulled_whole_or_not(stage, scene, work, outcome)
    yield from _again(stage, scene, work)  # 3
    yield from leftovers(work)  # 4
    if thorough:  # 5
        yield from damage(root)
        yield from (f"rebuilt at last: {each}" for each in _rebuilt(stage, scene, work, Outcome({})))


def is_begun(root: Path) -> bool:
    """Whoever was killed or refused before that made no registry at all."""
    return root.is_dir() and any(root.iterdir())


def damage(root: Path) -> list[str]:
    if not is_begun(root):
        return []
    return [
        f"doctor: {problem.invariant} {problem.message}" for problem in open_registry(root).doctor(deep=True).problems
    ]


def failed_cleanly(
    scene: Scene,
    before: Holdings,
    root: Path,
    outcome: Outcome,
    *,
    lasting: bool = False,
    exits: Collection[int] = (UNAVAILABLE,),
) -> Iterator[str]:
    """Law 6. A commit whose outcome the disk did not tell may also have happened, as a whole; and while the trouble is
    ``lasting`` nobody can tidy up either."""
    if outcome.error is None:
        return
    if outcome.error["exit"] not in exits:
        yield f"{outcome.error['type']} (exit {outcome.error['exit']}): {outcome.error['message']}"
    after = holdings(root)
    if scene.act != "gc" and after.audit == before.audit and after != before and not lasting:
        yield f"it failed and wrote: {sorted(after.blobs - before.blobs)} {sorted(after.staged - before.staged)}"


def _visible_is_acknowledged(stage: Stage, scene: Scene, root: Path, outcome: Outcome) -> Iterator[str]:
    """By digest; that the bytes are those of the digests is what ``doctor`` has just found."""
    acknowledged = {**scene.before, **(scene.adds if outcome.answer is not None else {})}
    shown = visible(open_registry(root))
    for reference in sorted(acknowledged.keys() - shown.keys()):
        yield f"{reference} was acknowledged and is not visible"
    for reference, version in shown.items():
        letter = {**scene.before, **scene.adds}.get(reference)
        if letter is None:
            yield f"{reference} is visible and nobody pushed it"
        elif version.digest != stage.digests[letter]:
            yield f"{reference} is not what was pushed"
    points_at = next((version.number for version in shown.values() if "production" in version.aliases), None)
    if points_at != scene.alias[1] and (outcome.answer is not None or points_at != scene.alias[0]):
        yield f"production points at {points_at}, expected {scene.alias[1]}"


def _pulled_as_pushed(stage: Stage, scene: Scene, root: Path) -> Iterator[str]:
    store, into = open_registry(root), root.parent / "judged"
    for reference in visible(store):
        shutil.rmtree(into, ignore_errors=True)
        store.pull(reference, into)
        letter = {**scene.before, **scene.adds}.get(reference)
        if letter is not None and not same_files(stage.contents[letter], into):
            yield f"{reference} pulled is not what was pushed"


def _pulled_whole_or_not(stage: Stage, scene: Scene, work: Path, outcome: Outcome) -> Iterator[str]:
    if scene.act != "pull":
        return
    into = work / "out" / "back"
    content = stage.contents[scene.before[str(scene.arguments["reference"])]]
    if into.exists() and not same_files(content, into):
        yield f"half a pull is at the place of a whole one: {sorted(os.listdir(into))}"
    if outcome.answer is not None and not into.exists():
        yield "the pull was acknowledged and nothing is there"


def _again(stage: Stage, scene: Scene, work: Path) -> Iterator[str]:
    job = stage.job(scene, work)
    if scene.act == "pull" and (work / "out" / "back").exists():
        return
    answer = ACTS[job.act](**job.arguments)
    if scene.act == "push" and scene.adds and answer["reference"] not in scene.adds:
        yield f"run again, it made {answer['reference']}"
    if scene.act == "pull":
        yield from _pulled_whole_or_not(stage, scene, work, Outcome(answer))
    if scene.adds or scene.alias[1] is not None:
        yield from (
            f"run again: {each}" for each in _visible_is_acknowledged(stage, scene, work / "registry", Outcome(answer))
        )


def leftovers(work: Path) -> Iterator[str]:
    """Law 4, by a collection."""
    root = work / "registry"
    store = open_registry(root)
    if is_begun(root):
        store.gc(grace=0)
    staged = [path.name for path in files_below(root / "staging")]
    temporary = [path.name for path in files_below(root / "journal") if path.suffix != ".jsonl"]
    orphans = sorted(set(store.blobs.digests()) - set(store.catalog.references()))
    partial = [name for name in os.listdir(work / "out") if "partial" in name]
    for what, found in {"staged": staged, "temporary": temporary, "orphan": orphans, "partial": partial}.items():
        if found:
            yield f"{what} files stay for ever: {found}"


def _rebuilt(stage: Stage, scene: Scene, work: Path, outcome: Outcome) -> Iterator[str]:
    copy = work / "rebuilt"
    shutil.copytree(work / "registry", copy / "registry")
    for path in (copy / "registry").glob("catalog.db*"):
        path.unlink()
    store = open_registry(copy / "registry")
    store.rebuild()
    yield from damage(copy / "registry")
    yield from _visible_is_acknowledged(stage, scene, copy / "registry", outcome)
    shutil.rmtree(copy)
