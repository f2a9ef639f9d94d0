"""``adapters combine`` against PEFT's ``add_weighted_adapter`` on adapters of a 1.1B-shaped model, in one run.

    python -m tests.benchmarks.bench_combine [--rounds 3] [--modules 7] [--rank 16] [--no-ties]

Work inside one process, without imports and without files on PEFT's side, where the layers are made for it; ours reads and
writes files. Errors are distances to the dense sum in float64, relative to its norm. Then how our cost grows with rank,
number of adapters and width.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from registry.connect import connect
from tests.benchmarks.measure import Series, inside, milliseconds, print_machine, print_table, race

#: One layer of the 1.1B shape: name → (out, in).
SHAPES = {
    "q_proj": (2048, 2048),
    "k_proj": (256, 2048),
    "v_proj": (256, 2048),
    "o_proj": (2048, 2048),
    "gate_proj": (5632, 2048),
    "up_proj": (5632, 2048),
    "down_proj": (2048, 5632),
}
WEIGHTS = (0.7, 0.3)


class Layer(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        for name, (out, inputs) in shapes.items():
            setattr(self, name, nn.Linear(inputs, out, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x


def write(into: Path, shapes: dict[str, tuple[int, int]], rank: int, seed: int) -> Path:
    into.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, inputs) in shapes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator) / 10
    save_file(tensors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": sorted(shapes)}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def deltas(directory: Path) -> dict[str, Tensor]:
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    found = {}
    for name, down in tensors.items():
        if "lora_A" in name:
            up = tensors[name.replace("lora_A", "lora_B")].double()
            path = name.split(".")[2]
            alpha = config.get("alpha_pattern", {}).get(f"^{path}", config["lora_alpha"])
            found[path] = up @ down.double() * (alpha / down.shape[0])
    return found


def error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return float((apart / sum(float(one.square().sum()) for one in wanted.values())) ** 0.5)


def peft(
    adapters: Sequence[Path], shapes: dict[str, tuple[int, int]], **options: Any
) -> tuple[Callable[[], object], Callable[[], dict[str, Tensor]]]:
    """The work, and what came of it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(Layer(shapes), str(adapters[0]), adapter_name="0")
        for number, path in enumerate(adapters[1:], 1):
            model.load_adapter(str(path), str(number))
    names = [str(number) for number in range(len(adapters))]

    def work() -> None:
        if "sum" in model.peft_config:
            model.delete_adapter("sum")
        model.add_weighted_adapter(names, list(WEIGHTS[: len(names)]), "sum", **options)

    def result() -> dict[str, Tensor]:
        return {
            name: getattr(model.base_model.model, name).get_delta_weight("sum").detach().double() for name in shapes
        }

    return work, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modules", type=int, default=len(SHAPES))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--no-ties", action="store_true", help="PEFT needs minutes for it")
    asked = parser.parse_args()
    shapes = dict(list(SHAPES.items())[: asked.modules])
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        adapters = [write(place / str(number), shapes, asked.rank, number) for number in (1, 2)]
        print_machine("combine", {"work": f"two adapters, r = {asked.rank}, {len(shapes)} modules of the 1.1B shape"})
        _against_peft(adapters, shapes, place, asked.rounds, rank=asked.rank, ties=not asked.no_ties)
        _growth(place, asked.rounds)


def _against_peft(
    adapters: list[Path], shapes: dict[str, tuple[int, int]], place: Path, rounds: int, *, rank: int, ties: bool
) -> None:
    registry = connect(place / "registry")
    pairs = list(zip(adapters, WEIGHTS, strict=True))
    exact = {name: sum(weight * deltas(path)[name] for path, weight in pairs) for name in shapes}
    rows = []
    works: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "sum, exact": ({}, {"combination_type": "cat"}),
        f"sum, rank {rank}": ({"rank": rank}, {"combination_type": "svd", "svd_rank": rank}),
    }
    if ties:
        works["ties, density 0.5"] = (
            {"method": "ties", "density": 0.5, "rank": rank},
            {"combination_type": "ties_svd", "density": 0.5, "svd_rank": rank},
        )
    for name, (ours, theirs) in works.items():
        work, result = peft(adapters, shapes, **theirs)
        done = race(
            {"ours": inside(lambda ours=ours: _combine(registry, pairs, place / "out", ours)), "peft": inside(work)},
            rounds=1 if "ties" in name else rounds,
        )
        rows.append(
            (
                name,
                milliseconds(done["ours"].median),
                milliseconds(done["peft"].median),
                f"{done['peft'].median / done['ours'].median:,.0f}×",
                f"{error(deltas(place / 'out'), exact):.2e}",
                f"{error(result(), exact):.2e}",
            )
        )
    print_table(("work", "ours", "PEFT", "faster by", "our error", "PEFT's error"), rows)


def _combine(registry: Any, pairs: Any, into: Path, options: dict[str, Any]) -> None:
    shutil.rmtree(into, ignore_errors=True)
    registry.combine(pairs, into, **options)


def _growth(place: Path, rounds: int) -> None:
    registry = connect(place / "registry")

    def measured(name: str, shapes: dict[str, tuple[int, int]], rank: int, count: int) -> Series:
        folder = place / name
        adapters = [write(folder / str(number), shapes, rank, number) for number in range(count)]
        work = inside(lambda: _combine(registry, [(one, 0.5) for one in adapters], folder / "out", {"rank": rank}))
        return race({"ours": work}, rounds=rounds)["ours"]

    square = {"a": (2048, 2048)}
    rows = [
        (f"rank {rank}, 2 adapters, width 2048", milliseconds(measured(f"r{rank}", square, rank, 2).median))
        for rank in (8, 16, 32, 64, 128)
    ]
    rows += [
        (f"rank 16, {count} adapters, width 2048", milliseconds(measured(f"n{count}", square, 16, count).median))
        for count in (1, 4, 8, 16)
    ]
    rows += [
        (
            f"rank 16, 2 adapters, width {width}",
            milliseconds(measured(f"w{width}", {"a": (width, width)}, 16, 2).median),
        )
        for width in (1024, 4096, 8192)
    ]
    print_table(("one module, truncated to the rank of one", "ours"), rows)


if __name__ == "__main__":
    main()
