"""Many at once: every acknowledged push has a number of its own, and no collector takes what somebody has just stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import lora_tensors, safetensors_bytes
from tests.faults.laws import damage, leftovers, open_registry, visible
from tests.faults.scenes import NAME, Stage
from tests.faults.server import Job, Outcome, Server

CROWD = 16


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


def sixteen(work: Path, template: Path) -> list[Path]:
    """Directories of different contents."""
    found = []
    for position in range(CROWD):
        directory = work / f"content-{position}"
        directory.mkdir()
        (directory / "adapter_config.json").write_bytes((template / "adapter_config.json").read_bytes())
        data = safetensors_bytes(lora_tensors(value=float(position)))
        (directory / "adapter_model.safetensors").write_bytes(data)
        found.append(directory)
    return found


def pushing(work: Path, directory: Path, name: str = NAME) -> Job:
    return Job("push", {"registry": str(work / "registry"), "directory": str(directory), "name": name}, work)


def numbers(outcomes: list[Outcome]) -> list[int]:
    assert all(outcome.answer is not None for outcome in outcomes), [str(outcome) for outcome in outcomes]
    return sorted(outcome.answer["number"] for outcome in outcomes if outcome.answer is not None)


def sound(work: Path) -> list[str]:
    return damage(work / "registry") + list(leftovers(work)) + damage(work / "registry")


def test_sixteen_pushers_of_one_content_make_one_version(work: Path, stage: Stage, server: Server) -> None:
    """Into a registry that is not there yet."""
    outcomes = server.together([pushing(work, stage.contents["A"])] * CROWD)
    assert numbers(outcomes) == [1] * CROWD
    assert sum(outcome.answer["created"] for outcome in outcomes if outcome.answer) == 1
    assert list(visible(open_registry(work / "registry"))) == [f"{NAME}@1"]
    assert sound(work) == []


def test_sixteen_contents_get_sixteen_numbers(work: Path, stage: Stage, server: Server) -> None:
    outcomes = server.together([pushing(work, each) for each in sixteen(work, stage.contents["A"])])
    assert numbers(outcomes) == list(range(1, CROWD + 1))
    assert len(visible(open_registry(work / "registry"))) == CROWD
    assert sound(work) == []


def test_of_sixteen_who_expect_the_same_alias_one_wins(work: Path, stage: Stage, server: Server) -> None:
    store = open_registry(work / "registry")
    for each in sixteen(work, stage.contents["A"]):
        store.push(each, name=NAME)
    store.set_alias(NAME, "production", 1)
    jobs = [
        Job(
            "compete_for_alias",
            {"registry": str(work / "registry"), "name": NAME, "alias": "production", "version": to, "expected": 1},
            work,
        )
        for to in range(2, CROWD + 1)
    ]
    answers = [outcome.answer for outcome in server.together(jobs)]
    assert all(answer is not None for answer in answers)
    winners = [answer["won"] for answer in answers if answer and answer["won"] is not None]
    assert len(winners) == 1
    assert {answer["found"] for answer in answers if answer and answer["won"] is None} == {winners[0]}
    assert store.aliases(NAME) == {"production": winners[0]}
    assert [(move.before, move.after) for move in store.alias_history(NAME, "production")] == [
        (None, 1),
        (1, winners[0]),
    ]
    assert sound(work) == []


def pushers_and_collectors(work: Path, stage: Stage, *, rounds: int, plant: str | None = None) -> list[Job]:
    registry = str(work / "registry")
    content = {"registry": registry, "directory": str(stage.contents["E"]), "rounds": rounds}
    pushers = [Job("push_and_forget", {**content, "name": f"local/p{each}"}, work) for each in range(3)]
    return pushers + [
        Job("collect_often", {"registry": registry, "rounds": rounds * 6}, work, plant=plant) for _ in range(2)
    ]


@pytest.mark.slow
def test_a_collector_without_grace_takes_nothing_that_a_push_relies_on(
    work: Path, stage: Stage, server: Server
) -> None:
    """Three pushers store, delete and store the same bytes again while two collectors take whatever nobody needs."""
    with open_registry(work / "registry").catalog.writing():
        pass  # a collector has nothing to do where nobody began
    outcomes = server.together(pushers_and_collectors(work, stage, rounds=8))
    assert all(outcome.answer is not None for outcome in outcomes), [str(outcome) for outcome in outcomes]
    assert [outcome.answer["lost"] for outcome in outcomes[:3] if outcome.answer] == [0, 0, 0]
    shown = visible(open_registry(work / "registry"))
    assert [outcome.answer["last"] in shown for outcome in outcomes[:3] if outcome.answer] == [True] * 3
    assert sound(work) == []


def test_pulls_to_one_place_end_with_one_whole_copy(work: Path, stage: Stage, server: Server) -> None:
    """Whoever comes late is told so (exit 5); no half copy, nothing left beside it."""
    open_registry(work / "registry").push(stage.contents["E"], name=NAME)
    into = work / "out" / "back"
    job = Job("pull", {"registry": str(work / "registry"), "reference": NAME, "into": str(into)}, work)
    outcomes = server.together([job] * 6)
    assert sum(outcome.answer is not None for outcome in outcomes) == 1
    assert {outcome.error["exit"] for outcome in outcomes if outcome.error} == {5}
    assert sorted(path.name for path in into.iterdir()) == sorted(path.name for path in stage.contents["E"].iterdir())
    assert [path.name for path in into.parent.iterdir()] == ["back"]
