"""What was acknowledged survives a power loss one microsecond later: every byte and every name was synced before."""

from __future__ import annotations

import errno

import pytest

from tests.faults.conftest import EVERYTHING
from tests.faults.order import Disk, names
from tests.faults.scenes import AGAIN, ALIAS, COLLECT, FIRST, SECOND, Scene, Stage, sample
from tests.faults.shim import Fault, read_trace


@pytest.mark.parametrize("scene", [FIRST, SECOND, AGAIN, COLLECT, ALIAS], ids=str)
def test_everything_is_synced_in_order_before_the_acknowledgement(stage: Stage, scene: Scene) -> None:
    work = stage.set_up(scene)
    disk = Disk(work / "registry", names(work / "registry"))
    lines = work.with_name("trace")
    assert stage.play_on(work, scene, Fault("nothing", 0), trace=lines).answer is not None
    calls = read_trace(lines)
    lines.unlink()
    assert list(disk.violations(calls)) == []
    assert calls[-1].name == "acknowledged" or any(call.name == "acknowledged" for call in calls)


@pytest.mark.parametrize("scene", [FIRST, SECOND], ids=str)
def test_what_a_killed_push_left_unsynced_is_synced_by_the_next(stage: Stage, scene: Scene) -> None:
    """Between the name and its fsync a writer may die; whoever relies on the name afterwards syncs it.
    But for the name of the registry itself, whose surroundings may be nobody's to read."""
    syncs = [call for call in stage.calls(scene) if call.name == "sync" and "catalog.db" not in call.path]
    found = []
    for number in sample(syncs, 6, everything=EVERYTHING):
        work = stage.set_up(scene)
        disk = Disk(work / "registry", names(work / "registry") | {str(work / "registry")})
        lines = work.with_name(f"{work.name}.trace")
        assert stage.play_on(work, scene, Fault("kill", number), trace=lines).killed
        assert stage.play_on(work, scene, Fault("nothing", 0), trace=lines).answer is not None
        found += [f"killed at call {number}: {sentence}" for sentence in disk.violations(read_trace(lines))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scene", [SECOND, ALIAS], ids=str)
def test_a_failed_sync_is_never_acknowledged(stage: Stage, scene: Scene) -> None:
    """But for the name of SQLite's rollback journal: SQLite does without."""
    calls = [call for call in stage.calls(scene, "sync") if not call.path.endswith("/registry")]
    acknowledged = []
    wanted = sample(calls, 8, everything=EVERYTHING)
    for call in calls:
        if call.number not in wanted:
            continue
        _, outcome = stage.play(scene, Fault("errno", call.number, "sync", value=errno.EIO))
        if outcome.answer is not None:
            acknowledged.append(f"sync {call.number} of {call.path}")
    assert acknowledged == []
