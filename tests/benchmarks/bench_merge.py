"""What a merge costs on CPUs: ``python -m tests.benchmarks.bench_merge``.

A base of 1.1 billion parameters in bf16, five files of random numbers, and an adapter of all its linear layers, r = 16 in
F32. The peers are ``cp -r`` of the base, the least that makes as many bytes, and PEFT, as its users merge. Everybody is
timed from the start of the process to the end of ``sync -f OUT``: a merge makes sure that the bytes are on the disk, and the
others have to as well. Inputs are in the page cache.

Targets: at most twice ``cp`` and ``sync``, of which importing torch is a good part, and 1.2 times without the imports; six
times as fast as PEFT; at most 700 MiB, whatever the size of the model and of its largest tensor. ``--profile`` tells where
the time goes instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.benchmarks.checkpoints import LARGE_VOCABULARY, LLAMA_1B, LLAMA_3B, RANK, Shape, write_adapter, write_base
from tests.benchmarks.measure import (
    ADAPTERS,
    MIB,
    Contestant,
    Sample,
    Series,
    command,
    inside,
    mebibytes,
    milliseconds,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)
from tests.benchmarks.push import afresh

WHOLE, INNER, FASTER, PEAK = 2.0, 1.2, 6.0, 700 * MIB
#: What grows is a few times the factors of the largest tensor: 16 MiB for an embedding of 256,000 tokens.
FLAT = 1.2
COPY, OURS, INSIDE, PEFT = "cp -r, sync", "adapters merge, sync", "the same without imports", "PEFT, sync"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, help="layers of every model (default: as many as they have)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peft-rounds", type=int, default=1, help="rounds in which PEFT takes part, behind a warm-up")
    parser.add_argument("--folder", type=Path, help="where the models are made: 13 GB (default: a temporary directory)")
    parser.add_argument("--no-peft", action="store_true", help="leave the slow peer away")
    parser.add_argument("--no-memory", action="store_true", help="leave the models of 6 and 4 GB away")
    parser.add_argument("--profile", action="store_true", help="where the time goes, and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adapters-bench-", dir=options.folder) as folder:
        work = Path(folder)
        bench = Bench(work, cut(LLAMA_1B, options.layers))
        if options.profile:
            print_profile(bench, rounds=options.rounds)
            return
        peak = speed(bench, rounds=options.rounds, peft_rounds=0 if options.no_peft else options.peft_rounds)
        rows = [bench.memory(peak)]
        bench.remove()
        arithmetic(work)
        if not options.no_memory:
            for shape, embeddings in ((LLAMA_3B, False), (LARGE_VOCABULARY, True)):
                rows.append(memory(work, cut(shape, options.layers), embeddings=embeddings))
        print_memory(rows)


def cut(shape: Shape, layers: int | None) -> Shape:
    return shape if layers is None else shape.with_layers(min(layers, shape.layers))


class Bench:
    """A base, an adapter of it, and who may merge them."""

    def __init__(self, work: Path, shape: Shape, *, embeddings: bool = False) -> None:
        self.shape = shape
        self._place = work / shape.name.replace(" ", "-")
        self.base = write_base(self._place / "base", shape)
        self.adapter = write_adapter(self._place / "adapter", shape, embeddings=embeddings)
        self.output, self._report = self._place / "out", self._place / "report.json"
        self._environment = {
            "BASE": str(self.base),
            "ADAPTER": str(self.adapter),
            "OUT": str(self.output),
            "ADAPTERS": ADAPTERS,
            "ADAPTERS_REGISTRY": str(self._place / "registry"),
            "HF_HUB_OFFLINE": "1",
        }

    def copy(self) -> Contestant:
        return self._shell('cp -r "$BASE" "$OUT" && sync -f "$OUT"')

    def ours(self, *, device: str = "cpu") -> Contestant:
        return self._shell(
            f'"$ADAPTERS" merge "$BASE" "$ADAPTER" -o "$OUT" --device {device} --quiet && sync -f "$OUT"'
        )

    def driven(self, how: str) -> Contestant:
        """Work that :mod:`tests.benchmarks.merge_driver` does."""
        words = [str(path) for path in (self.base, self.adapter, self.output, self._report)]
        run = command(sys.executable, "-m", "tests.benchmarks.merge_driver", how, *words, **self._environment)
        return afresh(self.output, run)

    def without_imports(self) -> Contestant:
        """The driver says itself how long it took, wall clock and CPU; its memory is that of the whole process."""
        whole = self.driven("ours")

        def run() -> Sample:
            sample = whole()
            return replace(sample, **json.loads(self._report.read_text()))

        return run

    def profile(self) -> dict[str, float]:
        sample = self.driven("profile")()
        found: dict[str, float] = json.loads(self._report.read_text())
        found["end of Python"] = sample.seconds - found.pop("all")
        return {**found, "all": sample.seconds}

    def memory(self, peak: int) -> tuple[Shape, int, int]:
        """With what ``--plan`` says before."""
        told = subprocess.run(
            [ADAPTERS, "merge", self.base, self.adapter, "--plan", "--json", "--device", "cpu"],
            env={**os.environ, **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return self.shape, json.loads(told.stdout)["peak_memory"], peak

    def remove(self) -> None:
        shutil.rmtree(self._place)

    def _shell(self, line: str) -> Contestant:
        return afresh(self.output, command("sh", "-c", line, **self._environment))


def speed(bench: Bench, *, rounds: int, peft_rounds: int) -> int:
    """The peak memory of the command, in bytes."""
    shape = bench.shape
    print_machine(
        f"Merge of a model of {shape.name}",
        {
            "base": f"{shape.bytes / 1e9:.2f} GB in bf16, {len(shape.tensors)} tensors, {shape.layers} layers, five files",
            "adapter": f"all linear layers, r = {RANK} in F32, {mebibytes(size_of(bench.adapter))}",
            "rounds": f"{rounds} behind a warm-up" + (f", {peft_rounds} with PEFT" if peft_rounds else ""),
        },
    )
    contestants = {COPY: bench.copy(), OURS: bench.ours(), INSIDE: bench.without_imports()}
    found = race(contestants, rounds=rounds)
    copied = found[COPY].median
    rows = [
        costs(COPY, found[COPY], copied, ""),
        costs(OURS, found[OURS], copied, target(found[OURS].median / copied, WHOLE)),
        costs(INSIDE, found[INSIDE], copied, target(found[INSIDE].median / copied, INNER)),
    ]
    if peft_rounds:
        beside = race({COPY: bench.copy(), OURS: bench.ours(), PEFT: bench.driven("peft")}, rounds=peft_rounds)
        ratio = beside[PEFT].median / beside[OURS].median
        said = f"{ratio:.1f}× ours, ≥ {FASTER:g}×: {verdict(-ratio, -FASTER)}"
        rows.append(costs(PEFT, beside[PEFT], beside[COPY].median, said))
    print_table(["work", "median", "spread", "CPU", "peak", f"÷ {COPY}", "target"], rows)
    peak = found[OURS].peak
    print(f"* peak memory {mebibytes(peak)}, ≤ {mebibytes(PEAK)}: {verdict(peak, PEAK)}")
    print(f"* load average behind it: {', '.join(f'{each:.1f}' for each in os.getloadavg())}\n", flush=True)
    return peak


def costs(name: str, series: Series, copied: float, said: str) -> tuple[str, ...]:
    peak, ratio = mebibytes(series.peak), f"{series.median / copied:.2f}×"
    return name, milliseconds(series.median), per_cent(series.spread), milliseconds(series.cpu), peak, ratio, said


def target(ratio: float, most: float) -> str:
    return f"≤ {most:g}×: {verdict(ratio, most)}"


def memory(work: Path, shape: Shape, *, embeddings: bool) -> tuple[Shape, int, int]:
    bench = Bench(work, shape, embeddings=embeddings)
    found = bench.memory(bench.ours()().peak)
    bench.remove()
    return found


def print_memory(rows: list[tuple[Shape, int, int]]) -> None:
    print_machine("Memory of a merge", {"measured": "the peak of the whole process"})
    smallest = rows[0][2]
    cells = []
    for shape, planned, peak in rows:
        said = f"≤ {mebibytes(PEAK)}: {verdict(peak, PEAK)}"
        if shape is not rows[0][0]:
            said += f"; flat, ≤ {FLAT:g}×: {verdict(peak / smallest, FLAT)}"
        sizes = f"{shape.bytes / 1e9:.2f} GB", mebibytes(shape.largest)
        cells.append((shape.name, *sizes, mebibytes(planned), mebibytes(peak), f"{peak / smallest:.2f}×", said))
    print_table(["model", "weights", "largest tensor", "planned", "peak", f"÷ {rows[0][0].name}", "target"], cells)


def arithmetic(work: Path) -> None:
    """One tensor of the model, on one thread: the sum alone, and with reading, looking for what is no number, and writing."""
    import torch

    from registry.connect import connect
    from registry.disk import write_at
    from registry.transforms.recipes import prepared
    from registry.transforms.streaming import loader
    from registry.transforms.workers import Cpu
    from registry.weights.streams import sources

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = Bench(work, replace(LLAMA_1B, name="one layer", layers=1, vocabulary=1000))
    plan = connect(work / "none").merge_plan(small.base, [small.adapter], device="cpu").plan
    one = next(each for each in plan.changed if each.shape == (LLAMA_1B.intermediate, LLAMA_1B.hidden))
    with sources(plan.sources) as files:
        recipe = prepared(one, loader(plan, files), torch.device("cpu"))
        (change,) = recipe.changes
        up, down, scaling = change.factors["up"], change.factors["down"], change.change.numbers["scaling"]
        weight = (torch.randn(one.shape) * 0.02).to(torch.bfloat16)
        copied, summed, whole = (torch.empty_like(weight) for _ in range(3))
        wide = torch.empty(Cpu.elements)
        worker, output = Cpu(), os.memfd_create("output")

        def in_float32() -> None:
            whole.copy_(weight.float() + scaling * (up @ down))

        def in_blocks() -> None:
            for block in recipe.blocks(Cpu.elements):
                rows = weight[block.start : block.stop]
                part = wide[: rows.numel()].view(rows.shape).copy_(rows)
                summed[block.start : block.stop].copy_(recipe.apply(part, block))

        def from_file_to_file() -> None:
            for block in recipe.blocks(Cpu.elements):
                worker.make(recipe, block, files, partial(write_at, output), 0)

        copy, plain, sums, made = (
            "a copy of it in memory",
            "in float32, the whole tensor at once",
            "row blocks: widen, sum, round",
            "the same, with reading, looking for NaN, and writing",
        )
        works = {copy: lambda: copied.copy_(weight), plain: in_float32, sums: in_blocks, made: from_file_to_file}
        found = race({name: inside(each) for name, each in works.items()}, rounds=15)
        exact = (weight.double() + scaling * (up.double() @ down.double())).to(torch.bfloat16)
        wrong = int((exact != summed).sum())
        os.close(output)
    small.remove()
    torch.set_num_threads(threads)
    print_machine("One target of 5632×2048 in bf16, r = 16", {"threads": 1, "rounds": 15})
    rows = [
        (
            name,
            milliseconds(each.median),
            per_cent(each.spread),
            milliseconds(each.cpu),
            f"{each.cpu / found[copy].cpu:.1f}×",
        )
        for name, each in found.items()
    ]
    print_table(["work", "median", "spread", "CPU", "CPU ÷ copy"], rows)
    print(f"* {wrong:,} of {exact.numel():,} elements are not the sum in float64, rounded once\n", flush=True)


def print_profile(bench: Bench, *, rounds: int) -> None:
    print_machine(f"Where the time of a merge of {bench.shape.name} goes", {"rounds": f"{rounds} behind a warm-up"})
    runs = [bench.profile() for _ in range(rounds + 1)][1:]
    medians = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
    lowest = {step: min(run[step] for run in runs) for step in runs[0]}
    rows = [
        (step, milliseconds(each), f"{each / medians['all']:.0%}", milliseconds(lowest[step]))
        for step, each in medians.items()
    ]
    print_table(["step", "median", "share", "least"], rows)
    copied = race({COPY: bench.copy()}, rounds=rounds)[COPY]
    print(
        f"* {COPY}: {milliseconds(copied.median)}; load average {', '.join(f'{each:.1f}' for each in os.getloadavg())}"
    )


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"* {time.perf_counter() - start:.0f} s in all")
