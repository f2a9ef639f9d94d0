"""Laws of the weighted sum and of the methods, over small adapters written by hand: quick enough for hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import Registry, connect
from registry.operations.combined import Combined
from registry.plans.combining import METHODS
from tests.oracle.test_combine_against_peft import same, total

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def write(into: Path, seed: int, *, rank: int, targets: tuple[str, ...] = ("a", "b"), alpha: float = 4) -> Path:
    into.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for target in targets:
        tensors[f"base_model.model.{target}.lora_A.weight"] = torch.randn(rank, 6, generator=generator)
        tensors[f"base_model.model.{target}.lora_B.weight"] = torch.randn(5, rank, generator=generator)
    save_file(tensors, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(targets)}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def dense(directory: Path) -> dict[str, Tensor]:
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    found = {}
    for name, down in tensors.items():
        if name.endswith("lora_A.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            alpha = config.get("alpha_pattern", {}).get(f"^{path}", config["lora_alpha"])
            up = tensors[name.replace("lora_A", "lora_B")].double()
            found[path] = up @ down.double() * (alpha / down.shape[0])
    return found


quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
weights = st.floats(-2, 2).filter(lambda w: abs(w) > 1e-3)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Registry, Path, Path, Path]:
    return (
        connect(tmp_path / "registry"),
        write(tmp_path / "one", 1, rank=2),
        write(tmp_path / "other", 2, rank=3, targets=("b", "c")),
        tmp_path,
    )


def combined(registry: Registry, asked: list[Any], into: Path, **options: Any) -> tuple[Combined, dict[str, Tensor]]:
    import secrets

    target = into / secrets.token_hex(4)
    return registry.combine(asked, target, **options), dense(target)


@quick
@given(weights, weights, st.floats(-2, 2).filter(lambda c: abs(c) > 1e-3))
def test_it_is_linear_in_the_weights_and_knows_no_order(
    place: tuple[Registry, Path, Path, Path], w: float, v: float, c: float
) -> None:
    registry, one, other, into = place
    _, found = combined(registry, [(one, w), (other, v)], into)
    same(found, total([(dense(one), w), (dense(other), v)]))
    same(combined(registry, [(other, v), (one, w)], into)[1], found)
    same(combined(registry, [(one, w * c), (other, v * c)], into)[1], {name: delta * c for name, delta in found.items()})


@pytest.mark.parametrize("method", METHODS)
def test_no_method_knows_an_order(method: str, place: tuple[Registry, Path, Path, Path]) -> None:
    registry, one, other, into = place
    _, found = combined(registry, [(one, 0.7), (other, 0.4)], into, method=method, rank=5)
    same(combined(registry, [(other, 0.4), (one, 0.7)], into, method=method, rank=5)[1], found)


@quick
@given(weights)
def test_one_alone_is_itself_and_weight_0_drops_out(place: tuple[Registry, Path, Path, Path], w: float) -> None:
    registry, one, other, into = place
    same(combined(registry, [(one, 1.0)], into)[1], dense(one))
    done, found = combined(registry, [(one, w), (other, 0.0)], into)
    same(found, total([(dense(one), w)]))
    assert {layer.path for layer in done.layers} == {"a", "b"}


@pytest.mark.parametrize("options", [{}, {"energy": 0.99}, {"rank": 2}, {"max_bytes": 900}, {"dtype": "F64"}])
@pytest.mark.parametrize("weights_", [(1.0, -1.0), (0.7, -0.7), (0.1, 0.2, -0.1 - 0.2)])
def test_a_sum_that_vanishes_is_zero_and_nothing_else_is_said(
    weights_: tuple[float, ...], options: dict[str, Any], place: tuple[Registry, Path, Path, Path]
) -> None:
    registry, one, _, into = place
    done, found = combined(registry, [(one, weight) for weight in weights_], into, **options)
    # The exact factors are there still, each rounded to the stored type.
    rounding = 0.0 if {"energy", "rank"} & options.keys() else len(weights_) * 1e-7
    assert all(float(delta.norm()) <= rounding for delta in found.values())
    assert (done.norm, done.discarded) == (0, 0)
    assert done.error <= rounding
    if {"energy", "rank"} & options.keys():
        assert {layer.rank for layer in done.layers} == {1}
        assert done.error == 0


@pytest.mark.parametrize("weight", [1.0, 0.01, 1e-4, -1e-4, 3e5])
@pytest.mark.parametrize(("down", "up"), [(0.1, 1e-3), (1e-3, 0.1), (30.0, 1e-4)])
def test_in_float16_the_sum_is_as_exact_as_its_digits(down: float, up: float, weight: float, tmp_path: Path) -> None:
    """B alone, times weight and scaling, would leave the exponents of float16, where A has many to spare."""
    adapters = [write(tmp_path / str(seed), seed, rank=4) for seed in (1, 2)]
    for adapter in adapters:
        path = adapter / "adapter_model.safetensors"
        sized = {name: tensor * (down if "lora_A" in name else up) for name, tensor in load_file(path).items()}
        save_file({name: tensor.half() for name, tensor in sized.items()}, path)
    done, found = combined(connect(tmp_path / "registry"), [(one, weight) for one in adapters], tmp_path)
    wanted = total([(dense(one), weight) for one in adapters])
    assert done.directory is not None
    stored = load_file(Path(done.directory) / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    config = json.loads((Path(done.directory) / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted) ** 0.5
    size = sum(float(delta.square().sum()) for delta in wanted.values()) ** 0.5
    assert apart / size == pytest.approx(done.error, rel=1e-6, abs=1e-15)
    assert done.error < 2.0**-11


def test_what_vanishes_beside_what_does_not_is_no_rank(place: tuple[Registry, Path, Path, Path]) -> None:
    """a, b of one cancel, and b and c of the other stay."""
    registry, one, other, into = place
    done, found = combined(registry, [(one, 1.0), (one, -1.0), (other, 1.0)], into, energy=1.0)
    same(found, dense(other))
    assert {layer.path: layer.rank for layer in done.layers} == {"a": 1, "b": 3, "c": 3}
    assert next(layer for layer in done.layers if layer.path == "a").error == 0


@quick
@given(st.integers(0, 99), st.integers(1, 4))
def test_it_does_not_matter_how_a_delta_is_factored(
    place: tuple[Registry, Path, Path, Path], seed: int, rank: int
) -> None:
    import secrets

    registry, one, other, into = place
    turned = into / secrets.token_hex(4)
    write(turned, 1, rank=2)
    turn = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed)) + 3 * torch.eye(2)
    tensors = load_file(turned / "adapter_model.safetensors")
    for name in [*tensors]:
        tensors[name] = turn @ tensors[name] if "lora_A" in name else tensors[name] @ torch.linalg.inv(turn)
    save_file(tensors, turned / "adapter_model.safetensors")
    for options in ({}, {"rank": rank}):
        ours = combined(registry, [(one, 0.5), (other, 0.5)], into, **options)[1]
        theirs = combined(registry, [(turned, 0.5), (other, 0.5)], into, **options)[1]
        same(theirs, ours, tolerance=1e-4)
