"""A byte budget: the file has at most so much, and of all ranks that fit, the chosen ones are nearest to the exact sum."""

from __future__ import annotations

import json
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.connect import Registry, connect
from registry.errors import RejectedError

#: Layer → (out, in): every layer costs something else, and none is as important as another.
SHAPES = {"q_proj": (24, 16), "k_proj": (8, 16), "down_proj": (16, 40)}


def write(into: Path, seed: int, rank: int = 3, **tensors: torch.Tensor) -> Path:
    into.mkdir()
    generator = torch.Generator().manual_seed(seed)
    made = dict(tensors)
    for number, (name, (out, inputs)) in enumerate(SHAPES.items(), 1):
        prefix = f"base_model.model.{name}.lora_"
        made[f"{prefix}A.weight"] = torch.randn(rank, inputs, generator=generator)
        made[f"{prefix}B.weight"] = torch.randn(out, rank, generator=generator) * number
    save_file(made, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*SHAPES], "task_type": "CAUSAL_LM"}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def dense(directory: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(directory / "adapter_model.safetensors")
    prefix = "base_model.model."
    return {
        name: tensors[f"{prefix}{name}.lora_B.weight"].double() @ tensors[f"{prefix}{name}.lora_A.weight"].double()
        for name in SHAPES
    }


def size(directory: Path) -> int:
    return (directory / "adapter_model.safetensors").stat().st_size


@pytest.fixture
def place(tmp_path: Path) -> tuple[Registry, list[Any], Path]:
    return connect(tmp_path / "registry"), [write(tmp_path / "one", 1), write(tmp_path / "two", 2)], tmp_path


def cost(ranks: dict[str, int], itemsize: int = 4) -> int:
    return sum(rank * sum(SHAPES[name]) * itemsize for name, rank in ranks.items())


@pytest.mark.parametrize("budget", [1120, 1500, 2000, 2400, 3000])
def test_no_other_ranks_that_cost_as_much_are_nearer_to_the_sum(
    budget: int, place: tuple[Registry, list[Any], Path]
) -> None:
    registry, adapters, into = place
    done = registry.combine(adapters, into / "out", max_bytes=budget)
    assert size(into / "out") == done.bytes <= budget
    exact = {name: sum(dense(one)[name] for one in adapters) for name in SHAPES}
    spectra = {name: torch.linalg.svdvals(delta) for name, delta in exact.items()}
    found = {layer.path: layer.rank for layer in done.layers}
    error = sqrt(sum(float((dense(into / "out")[name] - exact[name]).square().sum()) for name in SHAPES))
    others = [dict(zip(SHAPES, ranks, strict=True)) for ranks in product(range(1, 7), repeat=len(SHAPES))]
    errors = [
        sqrt(sum(float(spectra[name][rank:].square().sum()) for name, rank in other.items()))
        for other in others
        if cost(other) <= cost(found)
    ]
    assert error == pytest.approx(min(errors), rel=1e-5)
    assert done.discarded * done.norm == pytest.approx(error, rel=1e-5)
    assert done.error == pytest.approx(done.discarded, rel=1e-4)
    assert budget - size(into / "out") < max(sum(shape) for shape in SHAPES.values()) * 4 + 64


def test_what_fits_stays_exact(place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    registry.combine(adapters, into / "exact")
    done = registry.combine(adapters, into / "fits", max_bytes=size(into / "exact"))
    assert done.discarded == 0
    assert (into / "fits" / "adapter_model.safetensors").read_bytes() == (into / "exact" / "adapter_model.safetensors").read_bytes()
    less = registry.combine(adapters, into / "less", max_bytes=size(into / "exact") - 1)
    assert size(into / "less") < size(into / "exact")
    assert less.discarded > 0


def test_a_limit_of_the_rank_holds_as_well(place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    done = registry.combine(adapters, into / "out", rank=2, max_bytes=10_000)
    assert {layer.rank for layer in done.layers} == {2}
    tight = registry.combine(adapters, into / "tight", rank=2, max_bytes=1500)
    assert max(layer.rank for layer in tight.layers) <= 2
    assert size(into / "tight") <= 1500


@pytest.mark.parametrize("method", ["ties", "karcher"])
def test_dense_methods_fit_as_well(method: str, place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    done = registry.combine(adapters, into / "out", method=method, max_bytes=1600)
    assert size(into / "out") <= 1600
    assert done.error == pytest.approx(done.discarded, rel=1e-3)


def test_what_passes_through_counts(tmp_path: Path) -> None:
    head = torch.ones(100, 3)
    one, two = (write(tmp_path / name, n, **{"base_model.model.lm_head.weight": head}) for n, name in ((1, "one"), (2, "two")))
    for place in (one, two):
        config = json.loads((place / "adapter_config.json").read_text())
        (place / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": ["lm_head"]}))
    registry = connect(tmp_path / "registry")
    registry.combine([one, two], tmp_path / "out", max_bytes=2800)
    assert 2400 < size(tmp_path / "out") <= 2800


def test_a_version_says_what_was_asked_and_narrow_types_count_as_such(place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    wide = registry.combine(adapters, into / "wide", max_bytes=1600)
    done = registry.combine(adapters, into / "out", max_bytes=1600, dtype="BF16", name="small")
    assert size(into / "out") <= 1600
    assert sum(layer.rank for layer in done.layers) > sum(layer.rank for layer in wide.layers)
    assert registry.show("small").manifest.training["combine"]["max_bytes"] == 1600  # type: ignore[index]


def test_too_few_bytes_are_refused_with_how_many_it_takes(place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    with pytest.raises(RejectedError) as caught:
        registry.combine(adapters, into / "out", max_bytes=900)
    assert (caught.value.code, caught.value.exit_code) == ("too-few-bytes", 6)
    least = int(caught.value.message.split(" takes ")[1].split(" bytes")[0].replace(",", ""))
    assert sorted(path.name for path in into.iterdir()) == ["one", "two"]
    assert registry.combine(adapters, into / "out", max_bytes=least).bytes <= least


def narrow(adapter: Path) -> Path:
    path = adapter / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    return adapter


def types(directory: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(directory / "adapter_model.safetensors").values()}


@pytest.mark.parametrize("asked", [{"rank": 2}, {"energy": 0.9}, {"max_bytes": 1600}, {"method": "ties"}])
def test_what_is_left_away_of_a_narrow_sum_is_not_drowned_in_rounding(
    asked: dict[str, Any], place: tuple[Registry, list[Any], Path]
) -> None:
    """As far from the sum in float64 as was said, to more digits than the inputs' type has."""
    registry, adapters, into = place
    done = registry.combine([narrow(one) for one in adapters], into / "out", **asked)
    assert types(into / "out") == {torch.float32}
    assert done.bytes <= asked.get("max_bytes", done.bytes)
    assert done.error == pytest.approx(done.discarded, rel=1e-5, abs=1e-6)
    if "method" not in asked:
        apart = [dense(into / "out")[name] - sum(dense(one)[name] for one in adapters) for name in SHAPES]
        assert done.discarded * done.norm == pytest.approx(sqrt(sum(float(one.square().sum()) for one in apart)), rel=1e-5)


def test_the_type_that_is_asked_for_is_the_one_that_is_stored(place: tuple[Registry, list[Any], Path]) -> None:
    registry, adapters, into = place
    adapters = [narrow(one) for one in adapters]
    registry.combine(adapters, into / "exact")
    registry.combine(adapters, into / "narrow", rank=2, dtype="BF16")
    assert types(into / "exact") == types(into / "narrow") == {torch.bfloat16}


def test_a_version_says_what_each_target_lacks(place: tuple[Registry, list[Any], Path]) -> None:
    """Of its exact delta in float64, in the order of the manifest's targets."""
    registry, adapters, into = place
    done = registry.combine(adapters, into / "cut", rank=2, name="cut")
    manifest = registry.show("cut").manifest
    recipe: Any = manifest.training["combine"]
    for target, share in zip(manifest.targets, recipe["discarded_by_target"], strict=True):
        exact = sum(dense(one)[target.path] for one in adapters)
        assert share == pytest.approx(float((dense(into / "cut")[target.path] - exact).norm() / exact.norm()), rel=1e-4)
    assert (recipe["dtype"], recipe["discarded"]) == ("F32", done.discarded)
    registry.combine(adapters, name="whole", dtype="F64")
    whole: Any = registry.show("whole").manifest.training["combine"]
    assert whole["dtype"] == "F64"
    assert "discarded_by_target" not in whole
