"""No room: short writes under a file-size limit, and a file system that fills up. A push is whole, or refused with exit 8
and nothing written; reading goes on; once there is room, the same push succeeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.catalog.reserve import SIZE
from tests.faults.acts import NAME
from tests.faults.conftest import EVERYTHING
from tests.faults.holdings import holdings
from tests.faults.laws import failed_cleanly, violations
from tests.faults.scenes import ALIAS, FIRST, PULL, SECOND, Scene, Stage
from tests.faults.server import Job, Server
from tests.faults.shim import Fault

#: Bytes a file may have: around the sizes of a journal segment, a config, weights, a page and the catalog.
LIMITS = (0, 100, 300, 600, 4096, 65536, 139_264, 150_000, 180_000, 1 << 20)
MANY_LIMITS = (*range(0, 240_000, 4096), 1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("scene", [FIRST, SECOND, PULL, ALIAS], ids=str)
def test_a_file_size_limit_is_a_clean_refusal(stage: Stage, scene: Scene) -> None:
    root = stage.set_up(scene) / "registry"
    before, found, acknowledged = holdings(root), [], 0
    catalog = (root / "catalog.db").stat().st_size if scene.before else 0
    limits = MANY_LIMITS if EVERYTHING else LIMITS
    for limit in limits:
        work = stage.set_up(scene)
        outcome = stage.play_on(work, scene, limits={"RLIMIT_FSIZE": limit})
        acknowledged += outcome.answer is not None
        lasting = 0 < limit < catalog  # SQLite cannot even undo what it began
        sentences = list(failed_cleanly(scene, before, work / "registry", outcome, lasting=lasting))
        sentences += violations(stage, scene, work, outcome)
        found += [f"limit {limit}, {outcome}: {sentence}" for sentence in sentences]
    assert not found, "\n".join(found)
    assert acknowledged >= 1
    assert acknowledged < len(limits) or scene is PULL


@pytest.mark.parametrize("scene", [FIRST, SECOND, PULL, ALIAS], ids=str)
def test_short_writes_change_nothing(stage: Stage, scene: Scene) -> None:
    """Every write writes half of what it should: whoever wrote goes on with the rest."""
    work, outcome = stage.play(scene, Fault("short", 1, "write", times=0))
    assert outcome.answer is not None, outcome
    assert violations(stage, scene, work, outcome, thorough=True) == []


def test_bytes_that_never_reach_the_disk_are_found_before_the_acknowledgement(stage: Stage) -> None:
    """The disk answers success and keeps nothing."""
    before = holdings(stage.set_up(SECOND) / "registry")
    writes = [call for call in stage.calls(SECOND, "write", only="staging") if call.name == "write"]
    for call in writes:
        work, outcome = stage.play(SECOND, Fault("lie", call.number, "write", only="staging"))
        assert list(failed_cleanly(SECOND, before, work / "registry", outcome)) == []
        assert outcome.answer is None
        assert violations(stage, SECOND, work, outcome) == []


def full(stage: Stage, server: Server, space: str, room: int, place: Path) -> dict[str, Any]:
    original = stage.set_up(SECOND) / "registry"
    contents = {letter: str(content) for letter, content in stage.contents.items()}
    place.mkdir()
    arguments = {"space": space, "place": str(place), "original": str(original), "contents": contents, "room": room}
    outcome = server.run(Job("fill_up", arguments, place))
    assert outcome.answer is not None, f"{room} bytes of room: {outcome}"
    return outcome.answer


@pytest.mark.slow
@pytest.mark.parametrize("space", ["tmpfs", "quota"])
def test_a_full_disk_is_a_clean_refusal(stage: Stage, server: Server, space: str, tmp_path: Path) -> None:
    """The last pages of a real file system where one may be mounted, and in any case those that the shim counts."""
    if space == "tmpfs" and not can_mount(server, tmp_path):
        pytest.skip("nothing may be mounted here; the quota of the shim does the same")
    refused = 0
    rooms = [*range(0, 80 * 1024, 4096 if EVERYTHING else 10_240), 8 << 20]
    for room in rooms:
        facts = full(stage, server, space, room, tmp_path / f"place-{room}")
        if "refused" in facts:
            refused += 1
            assert facts["refused"]["exit"] == 8, facts["refused"]
            assert facts["refused"]["code"] == "no-space", facts["refused"]
            assert facts["nothing_written"], f"{room} bytes of room"
        listed = [f"{NAME}@1"] if "refused" in facts else [f"{NAME}@2", f"{NAME}@1"]
        assert facts["full"] == {"listed": listed, "problems": []}
        assert facts["pulled"]
        assert facts["again"]["reference"] == f"{NAME}@2"
        assert facts["left"] == []
        assert facts["grown"] == {"listed": [f"{NAME}@2", f"{NAME}@1"], "problems": []}
    assert 1 <= refused < len(rooms)


def test_a_full_disk_can_be_tidied(stage: Stage, server: Server, tmp_path: Path) -> None:
    if not can_mount(server, tmp_path):
        pytest.skip("nothing may be mounted here, and nothing but a real file system says how much room it has")
    contents = {letter: str(content) for letter, content in stage.contents.items()}
    outcome = server.run(Job("tidy_up", {"place": str(tmp_path), "contents": contents}, tmp_path))
    assert outcome.answer is not None, outcome
    assert outcome.answer["free"] == 0
    assert outcome.answer["back"]["moved"]
    assert outcome.answer["collected"]
    assert outcome.answer["freed"] > 1_000_000
    assert outcome.answer["reserve"] == SIZE
    assert (outcome.answer["listed"], outcome.answer["problems"]) == ([f"{NAME}@1"], [])


@pytest.mark.parametrize("how", ["mount", "modes", "errno"])
def test_a_registry_that_cannot_be_written_can_be_read(stage: Stage, server: Server, how: str, tmp_path: Path) -> None:
    """A read-only mount, directories without the write bit, or a shim that answers EROFS."""
    if how == "mount" and not can_mount(server, tmp_path):
        pytest.skip("nothing may be mounted here; the shim answers what such a mount would")
    work = stage.set_up(SECOND)
    contents = {letter: str(content) for letter, content in stage.contents.items()}
    arguments = {"place": str(work), "registry": str(work / "registry"), "how": how, "contents": contents}
    fault = Fault("errno", 1, "create,mkdir,rename,unlink", times=0, value=30) if how == "errno" else None
    outcome = server.run(Job("refused_everywhere", arguments, work, fault=fault))
    assert outcome.answer is not None, outcome
    assert outcome.answer["refusals"] == {"push": 8, "alias": 8}  # a gc finds nothing to do
    assert outcome.answer["looked"] == {"listed": [f"{NAME}@1"], "problems": []}


def can_mount(server: Server, place: Path) -> bool:
    return server.run(Job("try_to_mount", {"place": str(place)}, place)).answer is not None
