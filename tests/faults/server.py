"""The tests' side of the fork server: acts go out, what became of them comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.shim import Fault

_TOP = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """An act under ``fault``, whose reach is the directory ``work``."""

    act: str
    arguments: Mapping[str, Any]
    work: Path
    fault: Fault | None = None
    trace: Path | None = None
    plant: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "act": self.act,
            "arguments": dict(self.arguments),
            "work": str(self.work),
            "fault": asdict(self.fault) if self.fault else None,
            "trace": str(self.trace) if self.trace else None,
            "plant": self.plant,
            "limits": dict(self.limits),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """``answer`` is the acknowledgement; without one the act failed with ``error``, or was killed."""

    answer: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    signal: int | None = None

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL

    def __str__(self) -> str:
        if self.error:
            return f"failed with exit {self.error['exit']}: {self.error['message']}"
        return "killed" if self.killed else f"ended by signal {self.signal}" if self.signal else "acknowledged"


class Server:
    """``warm`` says what its children need not import: ``verbs`` of a registry, or ``merges`` with torch."""

    def __init__(self, library: Path, log: Path, warm: str = "verbs") -> None:
        self.library = library
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", warm],
            cwd=_TOP,
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, job: Job) -> Outcome:
        return self.together([job])[0]

    def together(self, jobs: Sequence[Job]) -> list[Outcome]:
        """All at once, from one gate."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"jobs": [job.document() for job in jobs]}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the fork server died: {Path(self._log.name).read_text()}"
        return [Outcome(**said) for said in json.loads(line)]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._log.close()
