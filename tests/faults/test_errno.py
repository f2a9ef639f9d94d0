"""An errno in the middle of a command: exit 8 and one sentence, or success; never a traceback, never half of anything."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from tests.faults.conftest import EVERYTHING
from tests.faults.laws import UNAVAILABLE, failed_cleanly, holdings, violations
from tests.faults.scenes import ALIAS, PULL, SCENES, SECOND, Scene, Stage, sample
from tests.faults.shim import EVERY, Fault

POINTS = 4
CORRUPTION = 7


@dataclass(frozen=True)
class Trouble:
    """What a failing medium answers, to which calls; ``lasting`` if it does not stop."""

    value: int
    kinds: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{errno.errorcode[self.value]}{'-lasting' if self.lasting else ''}"


TROUBLES = (
    Trouble(errno.ENOSPC, "create,write,mkdir,sync"),
    Trouble(errno.ENOSPC, "create,write,mkdir", lasting=True),
    Trouble(errno.EIO, EVERY),
    Trouble(errno.EROFS, "create,mkdir,rename,unlink", lasting=True),
    Trouble(errno.EMFILE, "create,open,list"),
)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_an_errno_is_a_clean_refusal(stage: Stage, scene: Scene, trouble: Trouble, record_property) -> None:
    calls = stage.calls(scene, trouble.kinds)
    before = holdings(stage.set_up(scene) / "registry")
    found, failed = [], 0
    points = sample(calls, POINTS, everything=EVERYTHING)
    for number in points:
        fault = Fault("errno", number, trouble.kinds, times=0 if trouble.lasting else 1, value=trouble.value)
        work, outcome = stage.play(scene, fault)
        failed += outcome.error is not None
        call = calls[number - 1]
        # SQLite takes a page that cannot be read for damage, which it may well be.
        exits = (UNAVAILABLE, CORRUPTION) if call.name == "read" and "catalog.db" in call.path else (UNAVAILABLE,)
        sentences = list(
            failed_cleanly(scene, before, work / "registry", outcome, lasting=trouble.lasting, exits=exits)
        )
        sentences += violations(stage, scene, work, outcome, thorough=EVERYTHING)
        found += [f"{fault}, {call.name} {call.path}: {sentence}" for sentence in sentences]
    record_property("errno_points", len(points))
    record_property("errno_failures", failed)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scene", [SECOND, ALIAS], ids=str)
def test_a_commit_that_fails_leaves_nothing_in_the_journal(stage: Stage, scene: Scene) -> None:
    """Rebuilt from the journal, the catalog must not show what was refused: its blobs are gone."""
    commit = [call for call in stage.calls(scene) if "catalog.db" in call.path and ".reserve" not in call.path][-12:]
    found = []
    for call in commit if EVERYTHING else commit[::3] + commit[-2:]:
        work, outcome = stage.play(scene, Fault("errno", call.number, value=errno.EIO))
        sentences = violations(stage, scene, work, outcome, thorough=True)
        found += [f"{call.name} {call.path}, {outcome}: {sentence}" for sentence in sentences]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scene", [SECOND, PULL, ALIAS], ids=str)
def test_running_out_of_descriptors_is_a_clean_refusal(stage: Stage, scene: Scene) -> None:
    before = holdings(stage.set_up(scene) / "registry")
    found, refused = [], 0
    for spare in range(0, 10, 1 if EVERYTHING else 2):
        work = stage.set_up(scene)
        outcome = stage.play_on(work, scene, limits={"RLIMIT_NOFILE": 6 + spare})
        if outcome.error and outcome.error["code"] == "unreadable-file":
            continue  # not even the adapter's own file could be opened: nothing was begun
        refused += outcome.error is not None and outcome.error["exit"] == UNAVAILABLE
        sentences = list(failed_cleanly(scene, before, work / "registry", outcome, lasting=True))
        if spare % 4 == 0:
            sentences += violations(stage, scene, work, outcome)
        found += [f"{spare} spare descriptors: {sentence}" for sentence in sentences]
    assert not found, "\n".join(found)
    assert refused >= 1
