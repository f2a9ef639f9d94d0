"""A merge in a process that says itself what it took; ``bench_merge`` starts it.

``ours BASE ADAPTER OUT REPORT``: registry and torch are imported first, then the clock runs until the output is synced.
``peft BASE ADAPTER OUT REPORT``: the same work as PEFT's users do it; who starts it has the clock.
``profile BASE ADAPTER OUT REPORT``: the command ``adapters merge`` with a clock around each of its steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

Seconds = dict[str, float]


def main() -> None:
    how, base, adapter, output, report = sys.argv[1:]
    found = {"ours": ours, "peft": peft, "profile": profile}[how](base, adapter, output)
    Path(report).write_text(json.dumps(found))


def ours(base: str, adapter: str, output: str) -> Seconds:
    from registry.connect import connect

    for module in ("operations.merge", "operations.verify", "transforms.merge"):
        import_module(f"registry.{module}")
    start, cpu = time.perf_counter(), time.process_time()
    connect(os.environ["ADAPTERS_REGISTRY"]).merge(base, [adapter], output, device="cpu")
    sync(output)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def peft(base: str, adapter: str, output: str) -> Seconds:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output)
    sync(output)
    return {}


def sync(output: str) -> None:
    subprocess.run(["sync", "-f", output], check=True)


IMPORTS, TORCH, BASE, ADAPTER, RULES, PLAN = (
    "start of Python, import of the command",
    "import torch and what computes",
    "read the base's config and headers",
    "read, hash and describe the adapter",
    "hold it against the base",
    "plan",
)
WRITE, SETTLE, VERIFY, REST, END, SYNC = (
    "compute and write",
    "wait for the disk (fsync beside the next file)",
    "read back and prove a sample",
    "config, card, index",
    "rename, sync of directories",
    "sync -f OUT",
)
OTHER = "between them"


def profile(base: str, adapter: str, output: str) -> Seconds:
    """What is not under one of the steps is "between them": of a step that has moved elsewhere in the program as well. Torch is
    imported by itself here, and not while the adapter is read."""
    clocks = Clocks(since=_started())
    import cli.main
    import registry.operations.merge as outer
    import registry.operations.merge_prepare as steps
    import registry.verbs.tensors as doors

    clocks.add(IMPORTS, clocks.now())
    workshop = doors._merge_workshop

    def instrumented() -> Any:
        with clocks.step(TORCH):
            made = workshop()
        import registry.transforms.streaming as writing

        clocks.around(writing, "_write", WRITE)
        return replace(
            made,
            write_merged=clocks.timed(made.write_merged, SETTLE),
            compare=clocks.timed(made.compare, VERIFY, every=True),
        )

    doors._merge_workshop = instrumented
    doors._ahead = cache
    clocks.around(steps, "base_directory", BASE)
    clocks.around(steps, "read_checkpoint", BASE)
    clocks.around(steps, "find_adapter", ADAPTER)
    clocks.around(steps, "_findings", RULES)
    clocks.around(steps, "plan_merge", PLAN)
    clocks.around(outer, "write_rest", REST)
    outer.workplace = _leaving(outer.workplace, clocks)
    sys.argv = ["adapters", "merge", base, adapter, "-o", output, "--device", "cpu", "--quiet"]
    try:
        cli.main.main()
    except SystemExit as end:
        if end.code:
            raise
    with clocks.step(SYNC):
        sync(output)
    return clocks.all()


class Clocks:
    """Seconds by step; a step within a step is taken off the outer one."""

    def __init__(self, *, since: float) -> None:
        self._since = since
        self._found: Seconds = {}
        self._within: list[float] = []

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._since

    def add(self, step: str, seconds: float) -> None:
        self._found[step] = self._found.get(step, 0.0) + seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = self.now()
        self._within.append(0.0)
        try:
            yield
        finally:
            whole = self.now() - start
            self.add(name, whole - self._within.pop())
            if self._within:
                self._within[-1] += whole

    def timed(self, function: Callable[..., Any], step: str, *, every: bool = False) -> Callable[..., Any]:
        """``every`` for a generator: its work is done while it is asked."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.step(step):
                return list(function(*args, **kwargs)) if every else function(*args, **kwargs)

        return run

    def around(self, module: ModuleType, name: str, step: str) -> None:
        if hasattr(module, name):
            setattr(module, name, self.timed(getattr(module, name), step))
        else:
            print(f"{module.__name__}.{name} is not there any more, so {step!r} is not measured", file=sys.stderr)

    def all(self) -> Seconds:
        whole = self.now()
        return {**self._found, OTHER: whole - sum(self._found.values()), "all": whole}


def _leaving(workplace: Callable[..., Any], clocks: Clocks) -> Callable[..., Any]:
    """The end of the workplace is where files get their last sync and the directory its name."""

    @contextmanager
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        inner = workplace(*args, **kwargs)
        with clocks.step(OTHER):
            value = inner.__enter__()
        try:
            yield value
        except BaseException:
            if not inner.__exit__(*sys.exc_info()):
                raise
        else:
            with clocks.step(END):
                inner.__exit__(None, None, None)

    return run


def _started() -> float:
    """When this process began, on the clock that counts from boot."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
