"""SIGKILL before each call that changes the disk: whatever the moment, the registry is sound and the command can be
run again."""

from __future__ import annotations

import pytest

from tests.faults.conftest import EVERYTHING
from tests.faults.laws import violations
from tests.faults.scenes import ALIAS, COLLECT, SCENES, SECOND, Scene, Stage, sample
from tests.faults.shim import Fault

#: At most so many kills of a verb; every eighth is looked at thoroughly.
POINTS = 24
THOROUGH = 8


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_a_kill_leaves_a_sound_registry(stage: Stage, scene: Scene, record_property) -> None:
    calls = stage.calls(scene)
    points = sample(calls, POINTS, everything=EVERYTHING)
    found, killed = [], 0
    for position, number in enumerate(points):
        fault = Fault("kill", number)
        work, outcome = stage.play(scene, fault)
        killed += outcome.killed
        thorough = EVERYTHING or position % THOROUGH == 0
        sentences = violations(stage, scene, work, outcome, thorough=thorough)
        call = calls[number - 1]
        found += [f"{fault}, {call.name} {call.path}: {sentence}" for sentence in sentences]
    record_property("crash_points", killed)
    assert not found, "\n".join(found)
    assert killed >= len(points) - 2  # calls may vary by one or two from run to run


@pytest.mark.parametrize("scene", [SECOND, COLLECT, ALIAS], ids=str)
def test_two_kills_in_a_row_are_no_worse_than_one(stage: Stage, scene: Scene) -> None:
    """The second one meets what the first has left, a hot rollback journal for example."""
    calls = stage.calls(scene)
    found = []
    for number in sample(calls, 3, everything=EVERYTHING):
        work, _ = stage.play(scene, Fault("kill", max(1, len(calls) - 3)))
        outcome = stage.play_on(work, scene, Fault("kill", number))
        found += [f"call {number}: {sentence}" for sentence in violations(stage, scene, work, outcome)]
    assert not found, "\n".join(found)
