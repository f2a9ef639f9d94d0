"""The whole command under a fault: its exit code, one sentence, no traceback."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.acts import NAME
from tests.faults.scenes import COLLECT, PULL, SECOND, Scene, Stage
from tests.faults.server import Server
from tests.faults.shim import EVERY, Fault

PUSH = ("push", "{E}", "--name", NAME)


@dataclass(frozen=True)
class Case:
    name: str
    scene: Scene
    command: Sequence[str]
    fault: Fault
    words: str

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("push-full", SECOND, PUSH, Fault("errno", 1, "write", times=0, value=errno.ENOSPC, only="staging"), "No space"),
    Case("push-catalog-full", SECOND, PUSH, Fault("quota", 1, value=12_000), "disk is full"),
    Case("push-sync-fails", SECOND, PUSH, Fault("errno", 1, "sync", value=errno.EIO), "Input/output error"),
    Case("push-read-only", SECOND, PUSH, Fault("errno", 1, "create,mkdir", times=0, value=errno.EROFS), "Read-only"),
    Case(
        "alias-full", PULL, ("alias", "set", NAME, "production", "1"),
        Fault("errno", 1, "write", times=0, value=errno.ENOSPC, only="journal/"), "No space",
    ),
    Case("gc-no-descriptors", COLLECT, ("gc", "--grace", "0"), Fault("errno", 1, "list", value=errno.EMFILE), "Too many"),
    Case(
        "pull-full", PULL, ("pull", NAME, "-o", "{work}/out/back"),
        Fault("errno", 1, "write", times=0, value=errno.ENOSPC, only="/out/"), "No space",
    ),
    Case("list-read-error", PULL, ("list",), Fault("errno", 1, EVERY, times=0, value=errno.EIO, only="catalog.db"), "catalog"),
)  # fmt: skip


def adapters(stage: Stage, work: Path, command: Sequence[str], environment: dict[str, str] | None = None):
    filled = [word.format_map({"work": work, **stage.contents}) for word in command]
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *filled, "--registry", str(work / "registry")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_storage_fault_is_exit_8_and_a_sentence(stage: Stage, server: Server, case: Case) -> None:
    work = stage.set_up(case.scene)
    done = adapters(stage, work, case.command, case.fault.environment(server.library, work))
    assert done.returncode == 8, done.stdout + done.stderr
    assert case.words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 6


@pytest.mark.slow
def test_a_killed_push_is_pushed_by_the_second_run(stage: Stage, server: Server) -> None:
    work = stage.set_up(SECOND)
    fault = Fault("kill", 1, "write", only="catalog.db-journal")
    assert adapters(stage, work, PUSH, fault.environment(server.library, work)).returncode == -signal.SIGKILL
    doctor = adapters(stage, work, ("doctor", "--deep", "--json"))
    assert doctor.returncode == 0
    assert json.loads(doctor.stdout)["problems"] == []
    again = adapters(stage, work, (*PUSH, "--json"))
    assert json.loads(again.stdout)["reference"] == f"{NAME}@2"


@pytest.mark.slow
def test_damage_is_exit_7_and_names_its_owners_and_an_unknown_reference_is_exit_4(stage: Stage) -> None:
    work = stage.set_up(SECOND)
    assert adapters(stage, work, ("show", "nobody-knows-it")).returncode == 4
    weights = hashlib.sha256((stage.contents["A"] / "adapter_model.safetensors").read_bytes()).hexdigest()
    blob = work / "registry" / "blobs" / "sha256" / weights[:2] / weights
    blob.chmod(0o644)
    blob.write_bytes(b"\xff" + blob.read_bytes()[1:])
    blob.chmod(0o444)
    doctor = adapters(stage, work, ("doctor", "--deep", "--json"))
    assert doctor.returncode == 7
    assert [problem["owners"] for problem in json.loads(doctor.stdout)["problems"]] == [[f"{NAME}@1"]]
    assert adapters(stage, work, ("pull", NAME, "-o", str(work / "out" / "back"))).returncode == 7
    assert not (work / "out" / "back").exists()
