"""``adapters combine`` against PEFT's ``add_weighted_adapter`` and mergekit's methods, on adapters of a 1.1B-shaped model.

    python -m tests.benchmarks.bench_combine [--rounds 3] [--layers 1] [--modules 7] [--rank 16] [--no-ties]

Time is that of the work inside one process, without imports and without files on PEFT's side, where the layers are made for
it; ours reads and writes files. Memory is the peak of a whole process that does it once, imports and all; PEFT's has the
layers in it. Errors are distances to the dense sum in float64, relative to its norm. mergekit merges models, so what is
compared with it is a method on the dense deltas of one weight. Then how our cost grows with rank, number of adapters and
width. Ours computes on the CPU; PEFT does on a GPU as well, where there is one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from registry.connect import connect
from registry.numerics.combining import COMBINERS
from tests.benchmarks.measure import (
    ADAPTERS,
    Series,
    command,
    inside,
    mebibytes,
    milliseconds,
    print_machine,
    print_table,
    race,
)

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
NO_GPU = "no GPU here"


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


#: The dense delta of one module at a time: all of them are larger than the model.
Delta = Callable[[str], Tensor]


def stored(directory: Path) -> Delta:
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")

    def delta(name: str) -> Tensor:
        prefix = f"base_model.model.{name}.lora_"
        down, up = tensors[f"{prefix}A.weight"], tensors[f"{prefix}B.weight"]
        alpha = config.get("alpha_pattern", {}).get(f"^{name}", config["lora_alpha"])
        return up.double() @ down.double() * (alpha / down.shape[0])

    return delta


def summed(pairs: Sequence[tuple[Path, float]]) -> Delta:
    parts = [(stored(path), weight) for path, weight in pairs]
    return lambda name: torch.stack([part(name) * weight for part, weight in parts]).sum(dim=0)


def error(found: Delta, wanted: Delta, names: Sequence[str]) -> float:
    apart = size = 0.0
    for name in names:
        exact = wanted(name)
        apart += float((found(name) - exact).square_().sum())
        size += float(exact.square_().sum())
    return (apart / size) ** 0.5


def shapes_of(adapter: Path) -> dict[str, tuple[int, int]]:
    tensors = load_file(adapter / "adapter_model.safetensors")
    names = [name.split(".")[2] for name in tensors if "lora_A" in name]
    prefix = "base_model.model."
    return {
        name: (tensors[f"{prefix}{name}.lora_B.weight"].shape[0], tensors[f"{prefix}{name}.lora_A.weight"].shape[1])
        for name in names
    }


def peft(adapters: Sequence[Path], *, device: str = "cpu", **options: Any) -> tuple[Callable[[], object], Delta]:
    """The work, and what came of it."""
    from peft import PeftModel

    shapes = shapes_of(adapters[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(Layer(shapes).to(device), str(adapters[0]), adapter_name="0")
        for number, path in enumerate(adapters[1:], 1):
            model.load_adapter(str(path), str(number))
    names = [str(number) for number in range(len(adapters))]

    def work() -> None:
        if "sum" in model.peft_config:
            model.delete_adapter("sum")
        model.add_weighted_adapter(names, list(WEIGHTS[: len(names)]), "sum", **options)
        if device != "cpu":
            torch.cuda.synchronize()

    def result(name: str) -> Tensor:
        layer = getattr(model.base_model.model, name)
        return layer.get_delta_weight("sum").detach().double().cpu()  # type: ignore[no-any-return]

    return work, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=1, help="the 1.1B model has 22")
    parser.add_argument("--modules", type=int, default=len(SHAPES))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--no-ties", action="store_true", help="PEFT needs minutes for it")
    parser.add_argument("--no-growth", action="store_true", help="only against the peers")
    parser.add_argument("--once", metavar="OPTIONS", help=argparse.SUPPRESS)
    parser.add_argument("adapters", nargs="*", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        peft(asked.adapters, **json.loads(asked.once))[0]()
        return
    some = list(SHAPES.items())[: asked.modules]
    shapes = {f"{name}_{layer}": shape for layer in range(asked.layers) for name, shape in some}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        adapters = [write(place / str(number), shapes, asked.rank, number) for number in (1, 2)]
        facts = {
            "work": f"two adapters, r = {asked.rank}, {len(shapes)} modules of the 1.1B shape",
            "peers": f"PEFT {version('peft')}, torch {torch.__version__}",
        }
        print_machine("combine", facts)
        _against_peft(adapters, place, asked.rounds, rank=asked.rank, ties=not asked.no_ties)
        _against_mergekit(asked.rounds)
        if not asked.no_growth:
            _growth(place, asked.rounds)


def _against_peft(adapters: list[Path], place: Path, rounds: int, *, rank: int, ties: bool) -> None:
    registry = connect(place / "registry")
    pairs = list(zip(adapters, WEIGHTS, strict=True))
    exact, names = summed(pairs), [*shapes_of(adapters[0])]
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
        work, result = peft(adapters, **theirs)
        done = race(
            {"ours": inside(lambda ours=ours: _combine(registry, pairs, place / "out", ours)), "peft": inside(work)},
            rounds=1 if "ties" in name else rounds,
        )
        rows.append(
            (
                name,
                milliseconds(done["ours"].median),
                milliseconds(done["peft"].median),
                _on_gpu(adapters, rounds, theirs),
                f"{done['peft'].median / done['ours'].median:,.1f}×",
                mebibytes(_peak_of_ours(pairs, place / "fresh", ours)),
                mebibytes(_peak_of_peft(adapters, theirs)),
                f"{error(stored(place / 'out'), exact, names):.2e}",
                f"{error(result, exact, names):.2e}",
            )
        )
    print_table(
        (
            "work",
            "ours",
            "PEFT",
            "PEFT on the GPU",
            "faster by",
            "our memory",
            "PEFT's memory",
            "our error",
            "PEFT's error",
        ),
        rows,
    )


def _on_gpu(adapters: Sequence[Path], rounds: int, options: dict[str, Any]) -> str:
    if not torch.cuda.is_available():
        return NO_GPU
    work, _ = peft(adapters, device="cuda", **options)
    return milliseconds(race({"peft": inside(work)}, rounds=rounds)["peft"].median)


def _peak_of_ours(pairs: Sequence[tuple[Path, float]], into: Path, options: dict[str, Any]) -> int:
    shutil.rmtree(into, ignore_errors=True)
    words = [f"{path}={weight}" for path, weight in pairs]
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return command(ADAPTERS, "combine", *words, "-o", str(into), "--registry", f"{into}.registry", "--quiet", *given)().peak


def _peak_of_peft(adapters: Sequence[Path], options: dict[str, Any]) -> int:
    return command(
        sys.executable, "-m", "tests.benchmarks.bench_combine", "--once", json.dumps(options), *map(str, adapters)
    )().peak


def _against_mergekit(rounds: int) -> None:
    """Equal weights, with which mergekit's mean over those that agree is the one of the paper, and ours."""
    if find_spec("mergekit") is None:
        print("mergekit is not installed here, so that there is no peer for the methods in delta space: pip install mergekit\n")
        return
    from mergekit.merge_methods.generalized_task_arithmetic import get_mask
    from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify

    def theirs(method: str, parts: list[Tensor], density: float) -> Tensor:
        kind = SparsificationMethod.random if "dare" in method else SparsificationMethod.magnitude
        rescale = RescaleNorm.l1 if "dare" in method else None
        sparse = torch.stack([sparsify(one, density, kind, rescale_norm=rescale) for one in parts])
        if method in ("dare_linear", "magnitude_prune"):
            return sparse.sum(dim=0)
        mask = get_mask(sparse, method="sum", mask_dtype=sparse.dtype)
        return (sparse * mask).sum(dim=0) / mask.sum(dim=0).clamp(min=1)

    shape = SHAPES["gate_proj"]
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape[0], 16, generator=draw) @ torch.randn(16, shape[1], generator=draw) for _ in WEIGHTS]
    rows = []
    for method in ("ties", "dare_linear", "dare_ties", "magnitude_prune"):
        options: dict[str, Any] = {"density": 0.5}
        if "dare" in method:
            options["generator"] = draw
        ours = COMBINERS[method].combine
        done = race(
            {
                "ours": inside(lambda ours=ours, options=options: ours(parts, [1.0, 1.0], **options)),
                "mergekit": inside(lambda method=method: theirs(method, parts, 0.5)),
            },
            rounds=rounds,
        )
        found, wanted = ours(parts, [1.0, 1.0], **options), theirs(method, parts, 0.5)
        apart = "" if "dare" in method else f"{float((found - wanted).norm() / wanted.norm()):.1e}"
        rows.append(
            (
                method,
                milliseconds(done["ours"].median),
                milliseconds(done["mergekit"].median),
                f"{done['mergekit'].median / done['ours'].median:,.1f}×",
                apart or "drawn at random",
            )
        )
    print(f"mergekit {version('mergekit')}, two dense deltas of {shape[0]} × {shape[1]}, density 0.5\n")
    print_table(("method", "ours", "mergekit", "faster by", "difference"), rows)


def _combine(registry: Any, pairs: Any, into: Path, options: dict[str, Any]) -> None:
    shutil.rmtree(into, ignore_errors=True)
    registry.combine(pairs, into, **options)


def _growth(place: Path, rounds: int) -> None:
    registry = connect(place / "registry")

    def measured(what: str, *, rank: int = 16, count: int = 2, width: int = 2048) -> tuple[str, str, str]:
        folder = place / f"{rank}-{count}-{width}"
        adapters = [write(folder / str(number), {"a": (width, width)}, rank, number) for number in range(count)]
        pairs = [(one, 0.5) for one in adapters]
        work = inside(lambda: _combine(registry, pairs, folder / "out", {"rank": rank}))
        done: Series = race({"ours": work}, rounds=rounds)["ours"]
        return what, milliseconds(done.median), mebibytes(_peak_of_ours(pairs, folder / "fresh", {"rank": rank}))

    rows = [
        *(measured(f"rank {rank}, 2 adapters, width 2048", rank=rank) for rank in (8, 16, 32, 64, 128)),
        *(measured(f"rank 16, {count} adapter{'s' * (count > 1)}, width 2048", count=count) for count in (1, 4, 8, 16)),
        *(measured(f"rank 16, 2 adapters, width {width}", width=width) for width in (1024, 4096, 8192)),
    ]
    print_table(("one module, truncated to the rank of one", "ours", "our memory"), rows)


if __name__ == "__main__":
    main()
