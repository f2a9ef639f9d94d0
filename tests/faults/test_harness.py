"""The harness's own test: each planted bug is caught by the check that is there for it, and by the word it uses.

A harness that misses one proves nothing when it is green.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.laws import damage, open_registry, violations
from tests.faults.order import Disk, names
from tests.faults.scenes import ALIAS, NAME, PULL, SECOND, Scene, Stage, sample
from tests.faults.server import Job, Server
from tests.faults.shim import Fault, read_trace
from tests.faults.test_race import pushers_and_collectors


def killed(stage: Stage, scene: Scene, plant: str, *, at: str, points: int) -> list[str]:
    """By kills at calls on paths with ``at`` in them."""
    found = []
    calls = [call for call in stage.calls(scene, plant=plant) if at in call.path]
    for number in sample(calls, points, everything=False):
        work, outcome = stage.play(scene, Fault("kill", number), plant=plant)
        found += violations(stage, scene, work, outcome)
    return found


def traced(stage: Stage, scene: Scene, plant: str | None, fault: Fault) -> list[str]:
    work = stage.set_up(scene)
    disk = Disk(work / "registry", names(work / "registry"))
    lines = work.with_name(f"{work.name}.trace")
    stage.play_on(work, scene, fault, plant=plant, trace=lines)
    return list(disk.violations(read_trace(lines)))


def some(found: list[str], words: str) -> bool:
    return any(words in sentence for sentence in found)


NO_FAULT = Fault("nothing", 0)


def test_a_commit_before_the_store_is_caught(stage: Stage) -> None:
    assert some(killed(stage, SECOND, "commit_before_store", at="/blobs", points=6), "I1")


def test_a_pull_in_place_is_caught(stage: Stage) -> None:
    assert some(killed(stage, PULL, "pull_in_place", at="/out/", points=6), "half a pull")


def test_a_journal_behind_the_catalog_is_caught(stage: Stage) -> None:
    assert some(killed(stage, SECOND, "journal_after_commit", at="/journal/", points=4), "the journal lacks")


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        ("files_not_synced", "renamed into place before its bytes were synced"),
        ("directories_not_synced", "the catalog committed before the name"),
        ("journal_not_synced", "the catalog committed before"),
    ],
)
def test_a_missing_fsync_is_caught(stage: Stage, plant: str, words: str) -> None:
    assert traced(stage, SECOND, None, NO_FAULT) == []
    assert some(traced(stage, SECOND, plant, NO_FAULT), words)


@pytest.mark.parametrize("plant", ["failed_sync_ignored", "failed_sync_repeated"])
def test_an_fsync_that_failed_in_vain_is_caught(stage: Stage, plant: str) -> None:
    fault = Fault("errno", 1, "sync", value=errno.EIO, only="staging")
    assert some(traced(stage, SECOND, plant, fault), "acknowledged after a failed sync")
    assert traced(stage, SECOND, None, fault) == []


def test_a_short_write_taken_for_a_whole_one_is_caught(stage: Stage) -> None:
    for fault in (
        Fault("short", 1, "write", times=0, only="staging"),
        Fault("lie", 1, "write", times=0, only="staging"),
    ):
        work, outcome = stage.play(SECOND, fault, plant="short_write_believed")
        assert outcome.answer is not None
        assert some(violations(stage, SECOND, work, outcome), "I1")


def test_a_change_that_is_not_on_record_is_caught(stage: Stage) -> None:
    work, outcome = stage.play(ALIAS, plant="change_not_logged")
    assert some(violations(stage, ALIAS, work, outcome), "I9")


def test_a_compare_and_set_that_only_sets_is_caught(tmp_path: Path, stage: Stage, server: Server) -> None:
    store = open_registry(tmp_path / "registry")
    for letter in "AB":
        store.push(stage.contents[letter], name=NAME)
    store.set_alias(NAME, "production", 1)
    arguments = {"registry": str(tmp_path / "registry"), "name": NAME, "alias": "production", "version": 2}
    jobs = [
        Job("compete_for_alias", {**arguments, "expected": 1}, tmp_path, plant="alias_not_compared"),
        Job("compete_for_alias", {**arguments, "expected": 1}, tmp_path, plant="alias_not_compared"),
    ]
    winners = [outcome.answer["won"] for outcome in server.together(jobs) if outcome.answer]
    assert winners == [2, 2]  # what the race test counts


@pytest.mark.slow
def test_a_collector_that_does_not_ask_again_is_caught(tmp_path: Path, stage: Stage, server: Server) -> None:
    (tmp_path / "out").mkdir()
    for attempt in range(10):
        work = tmp_path / str(attempt)
        work.mkdir()
        outcomes = server.together(pushers_and_collectors(work, stage, rounds=6, plant="collected_without_asking"))
        if any(outcome.error or (outcome.answer and outcome.answer.get("lost")) for outcome in outcomes):
            return
        if damage(work / "registry"):
            return
    pytest.fail("ten races, and nothing was lost")
