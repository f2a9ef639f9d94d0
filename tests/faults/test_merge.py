"""``adapters merge`` on a disk that fails, and killed at any moment: the output is whole and right or not there, the inputs
stay as they are, and what was finished is not lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.checkpoints import inodes, loadable
from tests.faults.conftest import EVERYTHING
from tests.faults.merges import Kitchen, out, partial, refused
from tests.faults.scenes import sample
from tests.faults.server import Job, Server
from tests.faults.shim import EVERY, MUTATING, Fault

NO_FAULT = Fault("nothing", 0)
INTERRUPTED = 130
MIDDLE = "model-00003"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, merge_server: Server, kitchen: Kitchen) -> Kitchen:
    return Kitchen(tmp_path_factory.mktemp("single"), merge_server, "single")


def interrupted(kitchen: Kitchen) -> Path:
    """A work directory in which a merge was killed before the third file was safe."""
    work = kitchen.work()
    fault = Fault("kill", 1, "sync", only=MIDDLE)
    assert kitchen.play(work, fault=fault).killed
    assert len(inodes(partial(work))) == 2
    return work


def killed_everywhere(kitchen: Kitchen, most: int, begin: Callable[[], Path], *extra: str) -> tuple[int, list[str]]:
    calls = kitchen.calls(MUTATING, *extra, work=begin())
    points = sample(calls, most, everything=EVERYTHING)
    found, killed = [], 0
    for number in points:
        work = begin()
        killed += kitchen.play(work, *extra, fault=Fault("kill", number)).killed
        call = calls[number - 1]
        found += [f"call {number}, {call.name} {call.path}: {each}" for each in kitchen.violations(work)]
    assert killed >= len(points) - 2  # calls may vary by one or two from run to run
    return killed, found


@pytest.mark.slow
def test_a_kill_leaves_nothing_that_loads_and_can_be_made_good(kitchen: Kitchen, record_property) -> None:
    killed, found = killed_everywhere(kitchen, 24, kitchen.work)
    record_property("crash_points", killed)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_a_kill_of_a_merge_into_one_file_is_no_worse(single: Kitchen, record_property) -> None:
    killed, found = killed_everywhere(single, 10, single.work)
    record_property("crash_points", killed)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [("--resume",), ()], ids=["resumed", "anew"])
def test_a_second_kill_is_no_worse_than_the_first(kitchen: Kitchen, extra: tuple[str, ...], record_property) -> None:
    """While what the first one has left is taken up, or thrown away."""
    killed, found = killed_everywhere(kitchen, 8, lambda: interrupted(kitchen), *extra)
    record_property("crash_points", killed)
    assert not found, "\n".join(found)


@dataclass(frozen=True)
class Trouble:
    """What a failing medium answers, to which calls; ``lasting`` if it does not stop. ``words`` are said then."""

    value: int
    kinds: str
    words: str
    lasting: bool = False
    points: int = 4

    def __str__(self) -> str:
        return f"{errno.errorcode[self.value]}{'-lasting' if self.lasting else ''}"


_GROWING = "create,write,mkdir,sync,truncate"
TROUBLES = (
    Trouble(errno.ENOSPC, _GROWING, "No space left", points=6),
    Trouble(errno.ENOSPC, _GROWING, "No space left", lasting=True),
    Trouble(errno.EDQUOT, "write,truncate", "quota exceeded"),
    Trouble(errno.EFBIG, "write,truncate", "File too large", points=2),
    Trouble(errno.EIO, EVERY + ",lock", "Input/output error", points=14),
    Trouble(errno.EROFS, "create,mkdir,rename,unlink", "Read-only", lasting=True, points=5),
    Trouble(errno.EMFILE, "create,open,list", "Too many open files", points=5),
    Trouble(errno.ENOLCK, "lock", "No locks available", points=1),
    Trouble(errno.ESTALE, "write,sync,rename", "Stale file handle", points=3),
)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_an_errno_is_exit_8_and_a_sentence(kitchen: Kitchen, trouble: Trouble, record_property) -> None:
    calls = kitchen.calls(trouble.kinds)
    found, failed = [], 0
    points = sample(calls, trouble.points, everything=EVERYTHING)
    for number in points:
        work = kitchen.work()
        fault = Fault("errno", number, trouble.kinds, times=0 if trouble.lasting else 1, value=trouble.value)
        said = kitchen.said(work, fault=fault)
        failed += said.exit != 0
        sentences = list(refused(said, {0: "", 8: trouble.words})) if said.exit else []
        sentences += kitchen.violations(work, strict=not trouble.lasting, fresh=EVERYTHING)
        call = calls[number - 1]
        found += [f"{fault}, {call.name} {call.path}: {sentence}" for sentence in sentences]
    record_property("errno_points", len(points))
    record_property("errno_failures", failed)
    assert not found, "\n".join(found)
    assert failed


def test_an_interrupted_call_is_made_again(kitchen: Kitchen) -> None:
    kinds = "create,open,write,sync,truncate,read"
    found = []
    for number in sample(kitchen.calls(kinds), 8, everything=EVERYTHING):
        work = kitchen.work()
        said = kitchen.said(work, fault=Fault("errno", number, kinds, value=errno.EINTR))
        found += [f"call {number}: {said.stderr}"] if said.exit else []
        found += kitchen.violations(work)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_an_input_that_cannot_be_read_is_named(kitchen: Kitchen, record_property) -> None:
    """Exit 8 as for every disk that fails; and the output is not to blame."""
    kinds = "open,read"
    calls = kitchen.calls(kinds, root=kitchen.inputs)
    found = []
    points = sample(calls, 14, everything=EVERYTHING)
    for number in points:
        work = kitchen.work()
        said = kitchen.said(work, fault=Fault("errno", number, kinds, value=errno.EIO), root=kitchen.inputs)
        sentences = list(refused(said, {8: "Input/output error"})) if said.exit else []
        call = calls[number - 1]
        if said.exit and call.path.endswith(".safetensors") and f"cannot read {kitchen.inputs}" not in said.stderr:
            sentences.append(f"not named: {said.stderr.splitlines()[-1]}")
        sentences += kitchen.violations(work, strict=True)
        found += [f"{call.name} {call.path or call.second}: {sentence}" for sentence in sentences]
    record_property("errno_points", len(points))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("errno", 1, "copy", times=0, value=each) for each in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP)),
        Fault("errno", 3, "copy", times=0, value=errno.EINVAL),
        Fault("errno", 2, "copy", value=errno.EIO),
        Fault("short", 1, "copy", times=0),
        Fault("short", 1, "write", times=0),
        Fault("short", 5, "write", times=3),
    ],
    ids=str,
)
def test_half_writes_and_a_kernel_that_cannot_copy_change_no_byte(kitchen: Kitchen, fault: Fault) -> None:
    work = kitchen.work()
    said = kitchen.said(work, fault=fault)
    assert said.exit == 0, said.stderr
    assert kitchen.violations(work) == []


@pytest.mark.parametrize("which", ["inputs", "output"])
def test_half_reads_change_no_byte(kitchen: Kitchen, which: str) -> None:
    work = kitchen.work()
    root = kitchen.inputs if which == "inputs" else None
    said = kitchen.said(work, fault=Fault("short", 1, "read", times=0), root=root)
    assert said.exit == 0, said.stderr
    assert kitchen.violations(work) == []


def test_bytes_that_never_reach_the_disk_are_found_before_the_output_appears(kitchen: Kitchen) -> None:
    """The disk answers success and keeps nothing: the sample that is read back tells."""
    writes = [call for call in kitchen.calls("write") if "model-00002" in call.path]
    found = []
    for number in sample(writes, 4, everything=EVERYTHING):
        work = kitchen.work()
        said = kitchen.said(work, fault=Fault("lie", number, "write"))
        found += [f"write {number} was lost: {said.stderr}"] if said.exit not in (3, 6) else []
        found += kitchen.violations(work, strict=True)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("limit", range(0, 6000, 250) if EVERYTHING else (0, 50, 500, 900, 1100, 3000, 5900))
def test_a_file_size_limit_is_exit_8(kitchen: Kitchen, limit: int) -> None:
    work = kitchen.work()
    said = kitchen.said(work, limits={"RLIMIT_FSIZE": limit})
    assert list(refused(said, {8: "File too large"})) == []
    assert kitchen.violations(work, strict=True) == []


@pytest.mark.slow
def test_running_out_of_descriptors_is_a_clean_refusal(kitchen: Kitchen) -> None:
    found, exits = [], []
    for limit in (*range(5, 24, 1 if EVERYTHING else 3), 32):
        work = kitchen.work()
        said = kitchen.said(work, limits={"RLIMIT_NOFILE": limit})
        exits.append(said.exit)
        sentences = list(refused(said, {8: "Too many open files"})) if said.exit else []
        sentences += kitchen.violations(work, strict=True, fresh=False)
        found += [f"{limit} descriptors: {sentence}" for sentence in sentences]
    assert not found, "\n".join(found)
    assert (exits[0], exits[-1]) == (8, 0)


def test_a_temp_directory_that_is_full_is_exit_8(kitchen: Kitchen) -> None:
    """Which is another disk than the output's, often a small one."""
    work = kitchen.work()
    said = kitchen.said(work, fault=Fault("errno", 1, "mkdir", times=0, value=errno.ENOSPC), root=work / "tmp")
    assert said.exit == 0 or list(refused(said, {8: "No space left"})) == []
    assert kitchen.violations(work, strict=True) == []


@pytest.mark.slow
def test_a_full_disk_is_exit_8_and_resumed_once_there_is_room(kitchen: Kitchen, merge_server: Server, tmp_path) -> None:
    """The last pages of a real file system."""
    if merge_server.run(Job("try_to_mount", {"place": str(tmp_path)}, tmp_path)).answer is None:
        pytest.skip("nothing may be mounted here; the errnos of the shim do the same")
    exits, kept = [], []
    for pages in (*range(2, 24, 1 if EVERYTHING else 4), 40):
        work = kitchen.work()
        place = {"place": str(work / "there"), "size": pages * 4096, "out": str(out(work))}
        arguments = {"arguments": kitchen.command(work), "temporary": str(work / "tmp"), **place}
        outcome = merge_server.run(Job("program_in_a_small_space", arguments, work))
        assert outcome.answer is not None, outcome
        facts = outcome.answer
        exits.append(facts["first"]["exit"])
        kept.append(facts["kept"][0])
        if exits[-1]:
            assert exits[-1] == 8, facts["first"]
            assert (facts["loadable"], facts["exists"]) == (0, False)
            assert facts["second"]["exit"] == 0, facts["second"]
        assert facts["kept"][1], "finished files were made again"
        assert facts["digests"] == kitchen.wanted
    assert exits[0] == 8
    assert exits[-1] == 0
    assert max(kept) > 0, "no merge got beyond its first file before the disk was full"


@pytest.mark.slow
def test_ctrl_c_is_exit_130_and_resumed(kitchen: Kitchen, record_property) -> None:
    calls = kitchen.calls()
    points = sample(calls, 10, everything=EVERYTHING)
    found, ended = [], 0
    for number in points:
        work = kitchen.work()
        said = kitchen.said(work, fault=Fault("interrupt", number))
        ended += said.exit == INTERRUPTED
        sentences = [] if said.exit == 0 and out(work).exists() else list(refused(said, {INTERRUPTED: "interrupted"}))
        sentences += kitchen.violations(work, strict=True)
        call = calls[number - 1]
        found += [f"SIGINT at {call.name} {call.path}: {sentence}" for sentence in sentences]
    record_property("interrupts", ended)
    assert not found, "\n".join(found)
    assert ended >= len(points) - 2


@pytest.mark.slow
def test_ctrl_c_of_the_real_program(kitchen: Kitchen, merge_server: Server) -> None:
    work = kitchen.work()
    fault = Fault("interrupt", 1, "sync", only="model-00002")
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *kitchen.command(work)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **fault.environment(merge_server.library, work), "TMPDIR": str(work / "tmp")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list((work / "tmp").iterdir()) == []
    assert loadable(work) == []


@pytest.mark.slow
def test_transformers_loads_what_is_finished_and_nothing_else(kitchen: Kitchen) -> None:
    from transformers import AutoModelForCausalLM

    work = kitchen.work()
    with pytest.raises(KeyboardInterrupt):
        kitchen.again(work, progress=kitchen.interrupt(work))
    for place in (work / "there", partial(work)):
        with pytest.raises((OSError, ValueError)):
            AutoModelForCausalLM.from_pretrained(place)
    kitchen.again(work, resume=True)
    _, told = AutoModelForCausalLM.from_pretrained(out(work), output_loading_info=True)
    assert not any(told.values())
