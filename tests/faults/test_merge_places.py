"""The place of a merge's output: who else is there, what was left there, who may read it, and that it survives a power loss."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import registry.operations.placing as placing
from registry.errors import ConflictError, OutputExistsError, RegistryError
from registry.plans.merge_plan import MergeOptions
from tests.faults.checkpoints import SHARDS, as_in_the_cache, digests, inodes, loadable
from tests.faults.merges import NOTE, AtCall, Kitchen, out, partial
from tests.faults.order import Disk
from tests.faults.server import Job, Server
from tests.faults.shim import Call, Fault, read_trace

NO_FAULT = Fault("nothing", 0)
CONFLICT, UNAVAILABLE, INTERRUPTED = 5, 8, 130


@pytest.fixture
def work(kitchen: Kitchen) -> Path:
    return kitchen.work()


def interrupt(kitchen: Kitchen, work: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        kitchen.again(work, progress=kitchen.interrupt(work))
    assert len(inodes(partial(work))) == 3


# What was left there


def test_what_is_finished_is_taken_up_and_not_made_again(kitchen: Kitchen, work: Path) -> None:
    interrupt(kitchen, work)
    assert loadable(work) == []
    before = {name: (partial(work) / name).stat() for name in inodes(partial(work))}
    assert sorted(path.name for path in partial(work).iterdir()) == sorted([*before, NOTE])
    heard = []
    kitchen.again(work, resume=True, progress=heard.append)
    after = {name: (out(work) / name).stat() for name in before}
    assert {name: (one.st_ino, one.st_mtime_ns) for name, one in after.items()} == {
        name: (one.st_ino, one.st_mtime_ns) for name, one in before.items()
    }
    whole = []
    kitchen.again(kitchen.work(), progress=whole.append)
    assert sum(heard) == sum(whole), "what is kept was held against what would be written"
    assert kitchen.violations(work) == []


@pytest.mark.parametrize("other", ["adapter", "weight", "dtype", "shard-size", "base", "base-touched", "two-adapters"])
def test_another_merge_does_not_take_it_up_nor_destroy_it(
    kitchen: Kitchen, work: Path, tmp_path: Path, other: str
) -> None:
    base = shutil.copytree(kitchen.base, tmp_path / "base") if other.startswith("base") else kitchen.base

    def run(adapters: Any, where: Path = base, **options: Any) -> None:
        kitchen.merge(where, adapters, out(work), **options)

    with pytest.raises(KeyboardInterrupt):
        run([kitchen.adapter], progress=kitchen.interrupt(work))
    left = digests(partial(work))
    arguments: dict[str, Any] = {
        "adapter": {"adapters": [kitchen.other]},
        "weight": {"adapters": [(kitchen.adapter, 0.5)]},
        "dtype": {"adapters": [kitchen.adapter], "options": MergeOptions(dtype="F32")},
        "shard-size": {"adapters": [kitchen.adapter], "options": MergeOptions(max_shard_bytes=6000)},
        "base": {"adapters": [kitchen.adapter], "where": kitchen.base},
        "base-touched": {"adapters": [kitchen.adapter]},
        "two-adapters": {"adapters": [kitchen.adapter, kitchen.other]},
    }[other]
    if other == "base-touched":
        os.utime(base / SHARDS[2], (1, 1))
    with pytest.raises(ConflictError) as caught:
        run(**arguments, resume=True)
    assert caught.value.code == "other-merge"
    assert digests(partial(work)) == left
    if other != "base-touched":
        run([kitchen.adapter], resume=True)
        assert {name: inodes(out(work))[name] for name in left if name != NOTE}


def test_resume_with_nothing_to_resume_just_merges(kitchen: Kitchen, work: Path) -> None:
    kitchen.again(work, resume=True)
    assert kitchen.violations(work) == []


@pytest.mark.parametrize("again", ["no-room", "broken-adapter", "taken"])
def test_a_resume_that_is_refused_destroys_nothing(
    kitchen: Kitchen, work: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    interrupt(kitchen, work)
    left = digests(partial(work))
    if again == "no-room":
        free = shutil.disk_usage(work)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    elif again == "broken-adapter":
        broken = work / "broken"
        shutil.copytree(kitchen.adapter, broken)
        (broken / "adapter_config.json").write_text("{")
    else:
        out(work).mkdir()
        (out(work) / "theirs").write_text("theirs")
    adapter = work / "broken" if again == "broken-adapter" else kitchen.adapter
    with pytest.raises(RegistryError):
        kitchen.merge(kitchen.base, [adapter], out(work), resume=True)
    assert digests(partial(work)) == left
    if again == "taken":
        shutil.rmtree(out(work))
    monkeypatch.undo()
    assert kitchen.violations(work) == []


# Who else is there


@pytest.mark.parametrize("theirs", ["directory", "file", "link", "dangling link"])
def test_an_output_that_somebody_makes_meanwhile_is_theirs(kitchen: Kitchen, work: Path, theirs: str) -> None:
    def make() -> None:
        if theirs == "directory":
            out(work).mkdir()
            (out(work) / "theirs").write_text("theirs")
        elif theirs == "file":
            out(work).write_text("theirs")
        else:
            out(work).symlink_to(kitchen.base if theirs == "link" else "nowhere")

    with pytest.raises(OutputExistsError):
        kitchen.again(work, progress=AtCall(1, make))
    after = digests(work / "there")
    assert len(after) == 1, "something was left beside theirs, or theirs was changed"
    assert list(kitchen.changed_inputs()) == []


def test_an_output_that_appears_in_the_last_moment_is_theirs(
    kitchen: Kitchen, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look, before the rename."""
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        if Path(target) == out(work):
            out(work).mkdir()
            (out(work) / "theirs").write_text("theirs")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(OutputExistsError):
        kitchen.again(work)
    assert [*digests(work / "there")] == ["out/theirs"]


def test_an_empty_directory_may_be_the_output(kitchen: Kitchen, work: Path) -> None:
    out(work).mkdir()
    kitchen.again(work)
    assert kitchen.violations(work) == []


@pytest.mark.parametrize("what", ["link to a directory", "link to nothing", "file", "full directory"])
@pytest.mark.parametrize("resume", [False, True])
def test_an_output_that_is_there_is_refused(kitchen: Kitchen, work: Path, what: str, resume: bool) -> None:
    place = out(work)
    if what.startswith("link"):
        (work / "elsewhere").mkdir()
        place.symlink_to(work / ("elsewhere" if what == "link to a directory" else "nowhere"))
    elif what == "file":
        place.write_text("theirs")
    else:
        place.mkdir()
        (place / "theirs").write_text("theirs")
    before = digests(work)
    with pytest.raises(OutputExistsError):
        kitchen.again(work, resume=resume)
    assert digests(work) == before
    assert [path.name for path in (work / "there").iterdir()] == ["out"]


def test_a_second_merge_to_the_same_place_is_refused_while_the_first_goes_on(kitchen: Kitchen, work: Path) -> None:
    codes = []

    def second() -> None:
        for resume in (False, True):
            try:
                kitchen.again(work, resume=resume)
            except ConflictError as error:
                codes.append(error.code)

    kitchen.again(work, progress=AtCall(1, second))
    assert codes == ["busy", "busy"]
    assert kitchen.violations(work) == []


@pytest.mark.slow
def test_of_merges_at_once_one_wins(kitchen: Kitchen, merge_server: Server) -> None:
    for _ in range(3):
        work = kitchen.work()
        outcomes = merge_server.together([kitchen.job(work), kitchen.job(work, "--resume"), kitchen.job(work)])
        exits = sorted(outcome.answer["exit"] for outcome in outcomes if outcome.answer)
        assert exits == [0, CONFLICT, CONFLICT], [str(outcome.answer) for outcome in outcomes]
        assert not any("Traceback" in outcome.answer["stderr"] for outcome in outcomes if outcome.answer)
        assert kitchen.violations(work) == []


@pytest.mark.parametrize("gone", ["renamed", "removed", "removed and made again"])
def test_a_place_that_goes_between_opening_and_locking_it_is_not_believed(
    kitchen: Kitchen, work: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """The other merge finished, or failed and tidied up, at just that moment: its lock was free and its place gone."""
    flock, moments = placing.fcntl.flock, [0]

    def late(descriptor: int, how: int) -> None:
        moments[0] += 1
        if moments[0] == 1:
            if gone == "renamed":
                os.rename(partial(work), work / "elsewhere")
            else:
                os.rmdir(partial(work))
            if gone == "removed and made again":
                partial(work).mkdir()
        flock(descriptor, how)

    monkeypatch.setattr(placing.fcntl, "flock", late)
    kitchen.again(work)
    assert moments[0] == 2
    assert kitchen.violations(work) == []


# Who may


def test_a_parent_that_cannot_be_written_is_exit_8(kitchen: Kitchen, merge_server: Server, work: Path) -> None:
    (work / "there").chmod(0o555)
    job = kitchen.job(work)
    outcome = merge_server.run(Job("unprivileged_program", job.arguments, job.work))
    assert outcome.answer is not None, outcome
    assert outcome.answer["exit"] == UNAVAILABLE, outcome.answer
    assert "Permission denied" in outcome.answer["stderr"]
    assert "Traceback" not in outcome.answer["stderr"]
    (work / "there").chmod(0o755)
    assert list((work / "there").iterdir()) == []
    assert list((work / "tmp").iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_may_read(kitchen: Kitchen, merge_server: Server, work: Path, umask: int) -> None:
    job = kitchen.job(work)
    outcome = merge_server.run(Job("program", {**job.arguments, "umask": umask}, job.work))
    assert outcome.answer is not None, outcome
    assert outcome.answer["exit"] == 0, outcome.answer
    assert stat.S_IMODE(out(work).stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(path.stat().st_mode) for path in out(work).iterdir()} == {0o666 & ~umask}
    assert list((work / "tmp").iterdir()) == []


def test_a_base_that_may_only_be_read_makes_an_output_that_may_be_written(
    kitchen: Kitchen, work: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(kitchen.base, tmp_path / "base")
    for path in base.iterdir():
        path.chmod(0o444)
    kitchen.merge(base, [kitchen.adapter], out(work))
    assert all(path.stat().st_mode & stat.S_IWUSR for path in out(work).iterdir())


def test_a_base_of_links_as_in_the_hubs_cache_gives_files(kitchen: Kitchen, work: Path, tmp_path: Path) -> None:
    base = as_in_the_cache(kitchen.base, tmp_path / "models--org--name")
    kitchen.merge(base, [kitchen.adapter], out(work))
    assert not any(path.is_symlink() for path in out(work).iterdir())
    names = kitchen.wanted.keys() - {"README.md"}  # says another base
    assert {name: digests(out(work))[name] for name in names} == {name: kitchen.wanted[name] for name in names}


def test_parents_that_are_not_there_are_made(kitchen: Kitchen, work: Path) -> None:
    where = work / "there" / "a" / "b" / "out"
    kitchen.merge(kitchen.base, [kitchen.adapter], where)
    assert digests(where) == kitchen.wanted


# Power


def durable_before_it_appears(calls: list[Call], work: Path) -> Iterator[str]:
    """Every byte and name of the output before the rename, the rename before the end."""
    there = str(work / "there")
    names = {there, str(partial(work)), str(partial(work) / NOTE), str(partial(work) / f"{NOTE}.tmp")}
    final = next(number for number, call in enumerate(calls) if call.name == "rename" and call.second == str(out(work)))
    before = [*calls[:final], Call("acknowledged", 0, 0, there, "")]
    yield from Disk(work / "there", names).violations(before)
    for call in before:
        if call.name == "rename" and call.second.endswith(".safetensors"):
            place = before.index(call)
            synced = [each for each in before[:place] if each.name == "sync" and each.path == call.path]
            if not synced:
                yield f"{call.second} got its name before an fsync"
    yield from Disk(work / "there", names).violations(calls)


def test_every_byte_is_synced_before_its_name_and_every_name_before_the_end(kitchen: Kitchen, work: Path) -> None:
    trace = work / "trace"
    assert kitchen.said(work, fault=NO_FAULT, trace=trace).exit == 0
    calls = read_trace(trace)
    assert any(call.name == "acknowledged" for call in calls)
    assert sum(call.name == "rename" for call in calls) == len(SHARDS) + 2  # the note, and all of it
    assert list(durable_before_it_appears(calls, work)) == []


@pytest.mark.parametrize(
    ("plant", "words"),
    [("shards_not_synced", "before its bytes were synced"), ("places_not_synced", "acknowledged before the name")],
)
def test_a_missing_fsync_is_caught(kitchen: Kitchen, work: Path, plant: str, words: str) -> None:
    trace = work / "trace"
    assert kitchen.said(work, fault=NO_FAULT, trace=trace, plant=plant).exit == 0
    assert any(words in sentence for sentence in durable_before_it_appears(read_trace(trace), work))


def killed_in_the_third_file(kitchen: Kitchen, plant: str) -> Path:
    calls = [call for call in kitchen.calls() if call.name == "write" and "model-00003" in call.path]
    work = kitchen.work()
    assert kitchen.play(work, fault=Fault("kill", calls[2].number), plant=plant).killed
    return work


def test_a_merge_that_is_not_atomic_is_caught(kitchen: Kitchen) -> None:
    assert kitchen.violations(killed_in_the_third_file(kitchen, "merge_in_place")) != []


def test_half_a_file_under_its_final_name_is_found_out_by_a_resume(kitchen: Kitchen) -> None:
    """As a disk leaves it that lost power, and what it had said was safe."""
    work = killed_in_the_third_file(kitchen, "half_files_believed")
    halves = inodes(partial(work))
    assert len(halves) == 3
    kitchen.again(work, resume=True)
    assert digests(out(work)) == kitchen.wanted
    assert sum(inodes(out(work))[name] == before for name, before in halves.items()) == 2
