"""Merges of one small sharded base and one adapter, and what holds after any fault:

1. Base and adapter are what they were, byte for byte.
2. The output is not there, or complete and equal to that of an undisturbed merge.
3. Nothing beside it loads, but what is already complete and only waits for its name.
4. The same command again succeeds with the same bytes and leaves nothing beside them.
5. With --resume it does so too, and what was finished is not made again; unless it was killed in the moment between the
   last word of the note that says what is being made, and the new name.
6. The system's temp directory has no files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from registry.connect import connect
from registry.errors import RegistryError
from tests.faults.checkpoints import digests, inodes, loadable, write_adapter, write_base
from tests.faults.server import Job, Outcome, Server
from tests.faults.shim import MUTATING, Call, Fault, read_trace

NOTE = "making"


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended."""

    exit: int
    stdout: str
    stderr: str


class AtCall:
    """A progress callback that does something once, between two blocks; and counts."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.count = 0
        self._number = number
        self._act = act

    def __call__(self, _count: int) -> None:
        self.count += 1
        if self.count == self._number:
            self._act()


class Kitchen:
    """``sort`` of the base is ``sharded`` or ``single``."""

    def __init__(self, root: Path, server: Server, sort: str = "sharded") -> None:
        self._root = root
        self._server = server
        self._count = 0
        self.base = write_base(root / "inputs" / "base", single=sort == "single")
        self.adapter = write_adapter(root / "inputs" / "adapter")
        self.other = write_adapter(root / "inputs" / "other", seed=2)
        self._inputs = digests(root / "inputs")
        work, counter = self.work(), AtCall(0, lambda: None)
        self.again(work, progress=counter)
        #: Every file of an undisturbed merge, and how often it reports progress.
        self.wanted = digests(out(work))
        self.blocks = counter.count

    @property
    def inputs(self) -> Path:
        return self._root / "inputs"

    def work(self) -> Path:
        self._count += 1
        work = self._root / f"work-{self._count}"
        (work / "there").mkdir(parents=True)
        (work / "tmp").mkdir()
        return work

    def command(self, work: Path, *extra: str) -> list[str]:
        where = ["-o", str(out(work)), "--registry", str(self._root / "registry")]
        return ["merge", str(self.base), str(self.adapter), *where, "--device", "cpu", *extra]

    def job(self, work: Path, *extra: str, fault: Fault | None = None, root: Path | None = None, **options: Any) -> Job:
        arguments = {"arguments": self.command(work, *extra), "temporary": str(work / "tmp")}
        return Job("program", arguments, root or work / "there", fault=fault, **options)

    def play(self, work: Path, *extra: str, **options: Any) -> Outcome:
        """``adapters merge`` under a fault of what lies in the output's parent (or in ``root``)."""
        return self._server.run(self.job(work, *extra, **options))

    def said(self, work: Path, *extra: str, **options: Any) -> Said:
        outcome = self.play(work, *extra, **options)
        assert outcome.answer is not None, outcome
        return Said(**outcome.answer)

    def calls(
        self, kinds: str = MUTATING, *extra: str, work: Path | None = None, root: Path | None = None
    ) -> list[Call]:
        """Every call that counts while nothing is broken."""
        place = work or self.work()
        lines = place / "trace"
        fault = Fault("nothing", 0, kinds=kinds)
        assert self.said(place, *extra, fault=fault, trace=lines, root=root).exit == 0
        return [call for call in read_trace(lines) if call.number]

    def again(self, work: Path, *, resume: bool = False, **options: Any) -> None:
        """In this process. Raises RegistryError."""
        self.merge(self.base, [self.adapter], out(work), resume=resume, **options)

    def merge(self, *arguments: Any, **options: Any) -> None:
        connect(self._root / "registry").merge(*arguments, device="cpu", **options)

    def violations(self, work: Path, *, strict: bool = False, fresh: bool = True) -> list[str]:
        """Laws 1 to 6; ``strict``, for programs that came to their own end: not even something complete loads where the output is
        not, and the temp directory is empty. Uses ``work`` up."""
        found = list(self._violations(work, strict=strict, fresh=fresh))
        if not found:
            shutil.rmtree(work)
        return found

    def _violations(self, work: Path, *, strict: bool, fresh: bool) -> Iterator[str]:
        yield from self.changed_inputs()  # 1
        there = work / "there"
        if out(work).exists():
            yield from self._unequal("the output", out(work))  # 2
        for directory in loadable(there):  # 3
            if directory != out(work):
                if strict:
                    yield f"{directory.name} loads"
                yield from self._unequal(f"{directory.name} loads and", directory)
        if left := [str(path) for path in (work / "tmp").rglob("*") if path.is_file() or strict]:  # 6
            yield f"temporary files stay: {left}"
        if out(work).exists():
            yield from self._beside(there)
            return
        if fresh:  # 4
            twin = self.work()
            shutil.rmtree(twin / "there")
            shutil.copytree(there, twin / "there", symlinks=True)
            yield from (f"merged again: {each}" for each in self._again(twin, resume=False))
            shutil.rmtree(twin)
        yield from (f"resumed: {each}" for each in self._again(work, resume=True))  # 5

    def interrupt(self, work: Path) -> Callable[[int], None]:
        """A progress callback that ends a merge with an interrupt, in its last file and once the others are finished."""

        def stop() -> None:
            while len(inodes(partial(work))) < sum(name.endswith(".safetensors") for name in self.wanted) - 1:
                sleep(0.001)
            raise KeyboardInterrupt

        return AtCall(self.blocks - 3, stop)

    def changed_inputs(self) -> Iterator[str]:
        if (now := digests(self.inputs)) != self._inputs:
            yield f"the inputs were changed: {sorted(now.items() ^ self._inputs.items())}"

    def _again(self, work: Path, *, resume: bool) -> Iterator[str]:
        before = inodes(partial(work)) if (partial(work) / NOTE).exists() else {}
        try:
            self.again(work, resume=resume)
        except RegistryError as error:
            yield f"refused: {error.message}"
            return
        yield from self._unequal("the output", out(work))
        yield from self._beside(work / "there")
        after = inodes(out(work))
        if resume and (made := [name for name, inode in before.items() if after.get(name) != inode]):
            yield f"made again: {made}"

    def _unequal(self, what: str, directory: Path) -> Iterator[str]:
        found = {name: digest for name, digest in digests(directory).items() if name != NOTE}
        if found != self.wanted:
            different = sorted({name for name, _ in found.items() ^ self.wanted.items()})
            yield f"{what} is not the merge: {different}"

    def _beside(self, there: Path) -> Iterator[str]:
        if beside := sorted(path.name for path in there.iterdir() if path.name != "out"):
            yield f"left beside the output: {beside}"


def out(work: Path) -> Path:
    return work / "there" / "out"


def partial(work: Path) -> Path:
    return work / "there" / ".out.partial-merge"


def refused(said: Said, exits: Mapping[int, str]) -> Iterator[str]:
    """A program that failed says so in one sentence and a hint, with one of these exit codes and its word."""
    words = exits.get(said.exit)
    lines = said.stderr.strip().splitlines() or [""]
    if words is None or words not in said.stderr:
        yield f"exit {said.exit}: {lines[-1]}"
    if "Traceback" in said.stderr or len(lines) > 2:
        yield f"exit {said.exit} with too many words: {lines[0]} … {lines[-1]}"
