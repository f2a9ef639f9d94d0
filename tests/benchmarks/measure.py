"""What the benchmarks share: clocks, rounds and tables.

Contestants take turns, round after round, so that a machine that is busy for a while slows all of them alike; what is
compared are medians. A command is started by a small launcher of its own: the peak memory that Linux reports for a child
includes the one who forked it.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ADAPTERS = str(Path(sys.executable).with_name("adapters"))
ROOT = Path(__file__).parents[2]
MIB = 1 << 20

_LAUNCHER = """
import json, os, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu, usage.ru_maxrss * 1024, usage.ru_oublock * 512]))
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Wall clock and processor time; ``peak`` memory and bytes ``written`` towards the disk, 0 for work inside this process."""

    seconds: float
    cpu: float = 0.0
    peak: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def cpu(self) -> float:
        """Less moved by other jobs than the wall clock, but blind to waiting for the disk."""
        return statistics.median(sample.cpu for sample in self.samples)

    @property
    def spread(self) -> float:
        """Interquartile range over median: above 0.1, measure again on a quieter machine."""
        if len(self.samples) < 3:
            return 0.0
        low, _, high = statistics.quantiles((sample.seconds for sample in self.samples), n=4)
        return (high - low) / self.median

    @property
    def peak(self) -> int:
        return max(sample.peak for sample in self.samples)

    @property
    def written(self) -> float:
        return statistics.median(sample.written for sample in self.samples)


Contestant = Callable[[], Sample]


def race(contestants: Mapping[str, Contestant], *, rounds: int) -> dict[str, Series]:
    """One warm-up, then ``rounds`` rounds in which everybody runs once."""
    found: dict[str, list[Sample]] = {name: [] for name in contestants}
    for turn in range(-1, rounds):
        for name, contestant in contestants.items():
            sample = contestant()
            if turn >= 0:
                found[name].append(sample)
    return {name: Series(tuple(samples)) for name, samples in found.items()}


def command(*words: str, **environment: str) -> Contestant:
    """A whole process, from spawn to exit, its output thrown away."""
    return partial(run, words, environment)


def run(words: Sequence[str], environment: Mapping[str, str]) -> Sample:
    done = subprocess.run(
        [sys.executable, "-ISc", _LAUNCHER, *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
    )
    code, *measured = json.loads(done.stdout)
    if code != 0:
        raise SystemExit(f"exit code {code} of: {' '.join(words)}")
    return Sample(*measured)


def inside(work: Callable[[], object]) -> Contestant:
    """Work in this process."""

    def contestant() -> Sample:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        return Sample(time.perf_counter() - start, time.process_time() - cpu)

    return contestant


def own_peak() -> int:
    """This process's peak memory so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_machine(title: str, facts: Mapping[str, object]) -> None:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"## {title}\n")
    lines = {
        "machine": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores; load average {load}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}",
        "commit": _commit(),
        **facts,
    }
    for name, text in lines.items():
        print(f"* {name}: {text}")
    print(flush=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Markdown, also readable as it is; every column but the first is a number."""
    cells = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [cells[0], rule, *cells[1:]]:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(f"| {' | '.join(padded)} |")
    print(flush=True)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def mebibytes(count: float) -> str:
    return f"{count / MIB:,.1f} MiB"


def per_cent(share: float) -> str:
    return f"±{share * 50:.0f} %"


def verdict(value: float, target: float) -> str:
    return "met" if value <= target else "MISSED"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "registry", "cli", "migrations")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and uncommitted changes" if changed else "")
