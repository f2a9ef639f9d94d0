"""What a merge costs on a CUDA device: ``python -m tests.benchmarks.bench_merge_gpu``.

From disk to disk: the command with ``--device cuda`` against the same with ``--device cpu`` and ``cp -r``; target: no slower
than the CPU. The two outputs are compared, element by element.

In place, weights on the device: each weight has to be read once and written once, so the limit is a copy of the same tensors,
measured in the same run, and the target 80 % of its speed. Timed is the pass over all weights, factors on the device; and
beside it the whole of ``merge_``, which reads the adapter, asks the rules and keeps what it replaces.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tests.benchmarks.bench_merge import COPY, Bench, costs, cut
from tests.benchmarks.checkpoints import ALPHA, LLAMA_1B, LLAMA_3B, LLAMA_7B, RANK, Shape, write_adapter
from tests.benchmarks.measure import (
    Contestant,
    Sample,
    milliseconds,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)

OF_A_COPY = 0.8
CPU, CUDA = "--device cpu", "--device cuda"
LIMIT, PASS, KEPT_THERE, KEPT_HERE, BACK = (
    "copy_ of the same weights",
    "one pass over them",
    "merge_, kept on the device",
    "merge_, kept on the CPU",
    "unmerge_, from the device",
)
#: So many bytes of model and copies are held at once.
_COPIES = 3.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, help="layers of every model (default: as many as they have)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the models are made: 7 GB (default: a temporary directory)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here that torch can use: nothing was measured, and nothing is guessed.\n")
        print_table(
            ["Work", "Against", "Target", "Measured"],
            [
                ("merge from disk to disk on a GPU", "the same on the CPU", "no slower", "not measured"),
                (
                    "merge in place on a GPU",
                    "copying the same bytes there",
                    f"≥ {OF_A_COPY:.0%} of its speed",
                    "not measured",
                ),
            ],
        )
        return
    with tempfile.TemporaryDirectory(prefix="adapters-bench-", dir=options.folder) as folder:
        work = Path(folder)
        disk_to_disk(Bench(work, cut(LLAMA_1B, options.layers)), rounds=options.rounds)
        free = torch.cuda.mem_get_info()[0]
        shape = next((one for one in (LLAMA_7B, LLAMA_3B) if one.bytes * _COPIES < free), LLAMA_1B)
        in_place(work, cut(shape, options.layers), rounds=max(options.rounds, 5))


def device() -> str:
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"{torch.cuda.get_device_name(0)}, {memory / 1e9:.0f} GB; torch {torch.__version__}"


def disk_to_disk(bench: Bench, *, rounds: int) -> None:
    shape = bench.shape
    base = f"{shape.bytes / 1e9:.2f} GB in bf16, {shape.layers} layers"
    print_machine(
        f"Merge of a model of {shape.name}, disk to disk", {"device": device(), "base": base, "rounds": rounds}
    )
    bench.ours(device="cpu")()
    kept = bench.output.rename(bench.output.with_name("cpu"))
    bench.ours(device="cuda")()
    print_differences(kept, bench.output)
    found = race({COPY: bench.copy(), CPU: bench.ours(device="cpu"), CUDA: bench.ours(device="cuda")}, rounds=rounds)
    copied, ratio = found[COPY].median, found[CUDA].median / found[CPU].median
    rows = [
        costs(name, each, copied, f"{ratio:.2f}× the CPU's, ≤ 1×: {verdict(ratio, 1.0)}" if name == CUDA else "")
        for name, each in found.items()
    ]
    print_table(["work", "median", "spread", "CPU", "peak", f"÷ {COPY}", "target"], rows)
    bench.remove()


@dataclass
class Difference:
    """How two tensors of 16 bits differ, in steps between neighbouring numbers."""

    elements: int = 0
    differing: int = 0
    most: int = 0

    def add(self, one: Tensor, other: Tensor) -> None:
        steps = (_steps(one) - _steps(other)).abs()
        self.elements += steps.numel()
        self.differing += int(steps.count_nonzero())
        self.most = max(self.most, int(steps.max()) if steps.numel() else 0)

    def sentence(self) -> str:
        return f"{self.differing:,} of {self.elements:,} elements differ, by {self.most} ulp at most"


def _steps(tensor: Tensor) -> Tensor:
    """Numbers in their order as integers: of bf16 or fp16, the bits below the sign count up from zero."""
    bits = tensor.contiguous().view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def print_differences(one: Path, other: Path) -> None:
    from safetensors import safe_open

    found = Difference()
    for path in sorted(one.glob("*.safetensors")):
        with safe_open(path, framework="pt") as ours, safe_open(other / path.name, framework="pt") as theirs:
            if list(ours.keys()) != list(theirs.keys()):
                raise SystemExit(f"{path.name} has other tensors from one device than from the other")
            for name in ours.keys():  # noqa: SIM118  # no mapping
                found.add(ours.get_tensor(name), theirs.get_tensor(name))
    print(f"* CPU against CUDA, from the same inputs: {found.sentence()}\n", flush=True)


def in_place(work: Path, shape: Shape, *, rounds: int, place: str = "cuda") -> None:
    """``place`` is the CPU where the program itself is tried out."""
    adapter = write_adapter(work / "adapter", shape)
    weights = random_weights(shape, place)
    factors = factors_of(adapter, shape, place)
    changed = {name: weights[name] for name in factors}
    count = sum(each.nbytes for each in changed.values())
    print_machine(
        f"Merge of a model of {shape.name}, in place",
        {
            "device": device() if place == "cuda" else place,
            "weights": f"{len(changed)} matrices in bf16, {count / 1e9:.2f} GB, each read and written: {2 * count / 1e9:.2f} GB",
            "adapter": f"r = {RANK} in F32",
            "rounds": rounds,
        },
    )
    found = Difference()
    for name in list(factors)[:7]:
        ours = weights[name].clone()
        add_({name: ours}, {name: factors[name]})
        up, down, scaling = factors[name]
        found.add(ours, (weights[name].double() + scaling * (up.double() @ down.double())).to(ours.dtype))
    print(f"* the pass over the first layer against the sum in float64, rounded once: {found.sentence()}\n", flush=True)

    copies = {name: torch.empty_like(each) for name, each in changed.items()}

    def copy() -> None:
        for name, each in changed.items():
            copies[name].copy_(each)

    contestants = {LIMIT: timed(copy, place), PASS: timed(lambda: add_(changed, factors), place)}
    series = race(contestants, rounds=max(rounds, 5))
    copied = series[LIMIT].median
    rows = []
    for name, each in series.items():
        share = copied / each.median
        said = f"≥ {OF_A_COPY:.0%}: {verdict(-share, -OF_A_COPY)}" if name == PASS else ""
        speed = f"{2 * count / each.median / 1e9:,.0f} GB/s"
        rows.append((name, milliseconds(each.median), per_cent(each.spread), speed, f"{share:.0%}", said))
    print_table(["work", "median", "spread", "read and written", "of the copy", "target"], rows)
    copies.clear()
    whole(weights, adapter, place, rounds=3)


def whole(weights: dict[str, Tensor], adapter: Path, place: str, *, rounds: int) -> None:
    try:
        from registry.transforms.live import merge_, unmerge_
    except ImportError as error:
        print(f"* merge_ cannot be imported ({error}): not measured\n", flush=True)
        return
    checked = next(name for name in weights if name.endswith("q_proj.weight"))
    before = weights[checked].clone()
    samples: dict[str, list[float]] = {KEPT_THERE: [], KEPT_HERE: [], BACK: []}
    for turn in range(rounds + 1):
        for name, keep_on in ((KEPT_THERE, place), (KEPT_HERE, "cpu")):
            start = clock(place)
            saved = merge_(weights, [adapter], keep_on=keep_on)
            merged = clock(place)
            if torch.equal(weights[checked], before):
                raise SystemExit("merge_ changed nothing")
            again = clock(place)
            unmerge_(weights, saved)
            back = clock(place) - again
            del saved
            if turn:
                samples[name].append(merged - start)
                samples[BACK] += [back] * (name == KEPT_THERE)
    same = "the bytes from before" if torch.equal(weights[checked], before) else "OTHER BYTES"
    rows = [(name, milliseconds(sorted(each)[len(each) // 2])) for name, each in samples.items()]
    print_table(["the whole call", "median"], rows)
    print(f"* unmerge_ left {same} in {checked}\n", flush=True)


def add_(weights: Mapping[str, Tensor], factors: Mapping[str, tuple[Tensor, Tensor, float]]) -> None:
    """The product's own pass over each weight."""
    from registry.numerics.merging import fused

    for name, weight in weights.items():
        if not fused.fits(weight, ["lora"]):
            raise SystemExit(f"there is no single pass for {name} here: Triton is missing, or the weight is unfit")
        fused.add_(weight, [factors[name]])


def random_weights(shape: Shape, place: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        name: torch.randn(each, dtype=torch.bfloat16, device=place).mul_(0.02) for name, each in shape.tensors.items()
    }


def factors_of(adapter: Path, shape: Shape, place: str) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Stored weight → (B, A, scaling), on the device."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / "adapter_model.safetensors", device=place)
    found = {}
    for name in shape.tensors:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in tensors:
            up, down = tensors[f"{module}.lora_B.weight"], tensors[f"{module}.lora_A.weight"]
            found[name] = up, down, ALPHA / RANK
    return found


def clock(place: str) -> float:
    if place == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], object], place: str) -> Contestant:
    def contestant() -> Sample:
        start = clock(place)
        work()
        return Sample(clock(place) - start)

    return contestant


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"* {time.perf_counter() - start:.0f} s in all")
