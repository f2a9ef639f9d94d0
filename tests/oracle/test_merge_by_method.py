"""``merge --method``: what lands in the base is the delta that the method makes, added in float32 and rounded once.

The oracle computes each adapter's dense delta by PEFT, hands them to the method, and adds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import Registry, connect
from registry.errors import ConflictError, RejectedError
from registry.numerics.combining import COMBINERS
from registry.plans.combining import METHODS, Blend
from registry.plans.merge_plan import MergeOptions
from registry.transforms.merge import merge_, unmerge_
from tests.oracle import tiny_models as tiny
from tests.oracle.test_combine_against_peft import LM, changes, train
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WEIGHTS = (0.7, -0.4)
PAIRS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "ranks": (tiny.llama, {"r": 2, **LM}, {"r": 5, "lora_alpha": 3, **LM}),
    "targets": (tiny.llama, {"target_modules": ["q_proj", "down_proj"], **LM}, {"target_modules": ["q_proj", "v_proj"], **LM}),
    "conv1d": (
        tiny.gpt2,
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, **LM},
        {"target_modules": ["c_attn"], "fan_in_fan_out": True, **LM},
    ),
    "embeddings": (tiny.llama, {"target_modules": ["embed_tokens", "q_proj"], **LM}, {"target_modules": ["embed_tokens"], **LM}),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def pair(name: str, place: Path) -> tuple[Any, Path, list[tuple[Path, float]]]:
    make, first, second = PAIRS[name]
    adapters = [train(make, place / "one", 1, first), train(make, place / "two", 2, second)]
    seeded(make).save_pretrained(place / "base")
    return make, place / "base", list(zip(adapters, WEIGHTS, strict=True))


def draw(seed: int, path: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {path} 0".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def blend(method: str, deltas: list[Tensor], weights: list[float], path: str, blend: Blend) -> Tensor:
    given = {"density": blend.density, "generator": draw(blend.seed, path)}
    # The smaller delta draws first, whichever adapter was named first.
    deltas, weights = map(list, zip(*sorted(zip(deltas, weights, strict=True), key=lambda one: float(one[0].norm())), strict=True))
    return COMBINERS[method].combine(deltas, weights, **{name: given[name] for name in COMBINERS[method].options})


def expected(make: Any, base: Path, adapters: list[tuple[Path, float]], wanted: Blend) -> dict[str, Tensor]:
    tensors = load_file(base / "model.safetensors")
    found = [(changes(make, path), weight) for path, weight in adapters]
    for target in dict.fromkeys(name for parts, _ in found for name in parts):
        path = target.removeprefix("base_model.model.")
        name = next(one for one in (f"{path}.weight", f"{path.removeprefix('transformer.')}.weight") if one in tensors)
        having = [(parts[target].float(), weight) for parts, weight in found if target in parts]
        turned = make is tiny.gpt2 or "embed" in path  # stored (in, out), and PEFT's delta as stored
        deltas = [delta.mT.contiguous() if turned else delta for delta, _ in having]
        delta = blend(wanted.method, deltas, [weight for _, weight in having], path, wanted)
        tensors[name] = tensors[name] + (delta.mT if turned else delta)
    return tensors


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAIRS)
def test_the_delta_of_the_method_is_added_and_rounded_once(name: str, method: str, tmp_path: Path) -> None:
    make, base, adapters = pair(name, tmp_path)
    wanted = Blend(method, 0.6, 7)
    options = MergeOptions(blend=wanted)
    registry = connect(tmp_path / "registry")
    registry.merge(base, adapters, tmp_path / "out", options=options, device="cpu")
    found, theirs = load_file(tmp_path / "out" / "model.safetensors"), expected(make, base, adapters, wanted)
    before = load_file(base / "model.safetensors")
    assert found.keys() == theirs.keys() == before.keys()
    assert any(not torch.equal(found[tensor], before[tensor]) for tensor in found)
    for tensor, value in theirs.items():
        # PEFT multiplies in float32, so that a few elements at the edge of a mask, or of a last place, are others
        apart = (found[tensor] - value).abs() > 1e-5 * value.abs() + 1e-6
        assert float(apart.double().mean()) < 0.002, tensor
    assert registry.verify(tmp_path / "out", base, adapters, options=options, whole=True).is_sound


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della_linear", "sce", "model_stock", "karcher"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_bytes_are_those_of_the_combination_that_keeps_everything(name: str, method: str, tmp_path: Path) -> None:
    """Combined at full rank, the method's delta is written in factors; merged as such it is the same to their rounding."""
    _, base, adapters = pair(name, tmp_path)
    registry = connect(tmp_path / "registry")
    registry.combine(adapters, tmp_path / "both", method=method, density=0.6, seed=3, rank=10_000, dtype="F32")
    registry.merge(base, [tmp_path / "both"], tmp_path / "first", device="cpu")
    options = MergeOptions(blend=Blend(method, 0.6, 3))
    registry.merge(base, adapters, tmp_path / "second", options=options, device="cpu")
    ours, theirs = (load_file(tmp_path / place / "model.safetensors") for place in ("first", "second"))
    for tensor, value in theirs.items():
        torch.testing.assert_close(ours[tensor], value, rtol=1e-5, atol=1e-5)


def experts(place: Path, *, separately: bool = False) -> tuple[Path, list[tuple[Path, float]]]:
    """Two adapters of the three fused experts of a small Mixtral, and its base."""
    base = place / "base"
    base.mkdir()
    draw = torch.Generator().manual_seed(0)
    layer = "model.layers.0.mlp.experts"
    tensors = {f"{layer}.{name}": torch.randn(3, out, 8, generator=draw) for name, out in (("gate_up_proj", 16), ("down_proj", 8))}
    tensors["model.layers.0.input_layernorm.weight"] = torch.ones(8)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 8, "num_local_experts": 3}
    (base / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    adapters = []
    for number, rank in ((1, 2), (2, 3)):
        into = place / f"adapter-{number}"
        into.mkdir()
        name = f"base_model.model.{layer}.base_layer.lora_"
        other = f"base_model.model.{layer}.lora_"
        factors = {}
        for prefix, (out, inputs) in ((name, (16, 8)), (other, (8, 8))):
            factors[f"{prefix}A.weight"] = torch.randn(3 * rank, inputs, generator=draw)
            factors[f"{prefix}B.weight"] = torch.randn(out, 3 * rank, generator=draw)
        save_file(factors, into / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [], "task_type": "CAUSAL_LM"}
        settings |= {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "peft_version": "0.21.2"}
        (into / "adapter_config.json").write_text(json.dumps(settings))
        adapters.append((into, WEIGHTS[number - 1]))
    return base, adapters


def combined_then_merged(
    registry: Registry, base: Path, adapters: list[tuple[Path, float]], place: Path, wanted: Blend
) -> dict[str, Tensor]:
    options = {"density": wanted.density, "seed": wanted.seed, "rank": 10_000, "dtype": "F32"}
    registry.combine(adapters, place / "both", method=wanted.method, **options)  # type: ignore[arg-type]
    registry.merge(base, [place / "both"], place / "first", device="cpu")
    return load_file(place / "first" / "model.safetensors")


@pytest.mark.parametrize("method", ["ties", "dare_linear", "karcher"])
def test_each_fused_expert_is_a_delta_of_its_own(method: str, tmp_path: Path) -> None:
    base, adapters = experts(tmp_path)
    registry, wanted = connect(tmp_path / "registry"), Blend(method, 0.5, 5)
    theirs = combined_then_merged(registry, base, adapters, tmp_path, wanted)
    registry.merge(base, adapters, tmp_path / "out", options=MergeOptions(blend=wanted), device="cpu")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["dare_ties", "sce"])
def test_blocks_of_any_size_and_any_number_of_threads_give_the_same_bytes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapters = experts(tmp_path)
    registry, options = connect(tmp_path / "registry"), MergeOptions(blend=Blend(method, 0.5, 5))
    registry.merge(base, adapters, tmp_path / "one", options=options, device="cpu")
    for elements, threads in ((9, 1), (40, 4), (100, 3)):
        monkeypatch.setattr("registry.transforms.workers.Cpu.elements", elements)
        monkeypatch.setattr("registry.transforms.crew.os.sched_getaffinity", lambda _process, count=threads: set(range(count)))
        place = tmp_path / f"with-{elements}"
        registry.merge(base, adapters, place, options=options, device="cpu")
        assert (place / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()


def test_the_seed_is_the_bytes_and_another_seed_is_another_model(tmp_path: Path) -> None:
    _, base, adapters = pair("ranks", tmp_path)
    registry = connect(tmp_path / "registry")

    def made(name: str, **options: Any) -> bytes:
        registry.merge(base, adapters, tmp_path / name, options=MergeOptions(blend=Blend("dare_linear", **options)), device="cpu")
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert made("a", seed=1) == made("b", seed=1)
    assert made("c", seed=2) != made("d", seed=1)
    assert made("e", density=0.3) != made("f", density=0.4)


def test_verify_tells_one_method_from_another_and_the_recipe_names_it(tmp_path: Path) -> None:
    _, base, adapters = pair("ranks", tmp_path)
    registry, options = connect(tmp_path / "registry"), MergeOptions(blend=Blend("dare_ties", 0.5, 1))
    registry.merge(base, adapters, tmp_path / "out", options=options, device="cpu", name="merged")
    assert registry.verify(tmp_path / "out", base, adapters, options=options).is_sound
    for other in (Blend(), Blend("ties"), Blend("dare_ties", 0.5, 2), Blend("dare_ties", 0.4, 1)):
        assert not registry.verify(tmp_path / "out", base, adapters, options=replace(options, blend=other)).is_sound
    recipe = registry.show("merged").manifest.training["merge"]
    assert {"combined_by": "dare_ties", "density": 0.5, "seed": 1}.items() <= recipe.items()  # type: ignore[attr-defined]
    assert "combined by: dare_ties" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_without_weight_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    _, base, adapters = pair("ranks", tmp_path)
    registry, options = connect(tmp_path / "registry"), MergeOptions(blend=Blend("ties", 0.5))
    registry.merge(base, [adapters[0], (adapters[1][0], 0.0)], tmp_path / "first", options=options, device="cpu")
    registry.merge(base, adapters[:1], tmp_path / "second", options=options, device="cpu")
    ours, theirs = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert ours == theirs


REFUSED: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "dora": ({"use_dora": True, **LM}, "ties", 1, "not-combinable"),
    "three on one way": (LM, "slerp", 3, "other-count"),
    "one on one way": (LM, "slerp", 1, "other-count"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_method_is_not_about_is_refused(case: str, tmp_path: Path) -> None:
    options, method, count, rule = REFUSED[case]
    adapters = [train(tiny.llama, tmp_path / str(n), n, options if n == 0 else LM) for n in range(count)]
    seeded(tiny.llama).save_pretrained(tmp_path / "base")
    there = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RejectedError) as caught:
        connect(tmp_path / "registry").merge(
            tmp_path / "base", adapters, tmp_path / "out", options=MergeOptions(blend=Blend(method)), device="cpu"
        )
    assert (caught.value.exit_code, caught.value.code) == (6, rule)
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_in_memory_it_is_the_same_bytes(tmp_path: Path) -> None:
    _, base, adapters = pair("targets", tmp_path)
    options = MergeOptions(blend=Blend("dare_ties", 0.5, 1))
    connect(tmp_path / "registry").merge(base, adapters, tmp_path / "out", options=options, device="cpu")
    weights, theirs = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    before = {name: tensor.clone() for name, tensor in weights.items()}
    saved = merge_(weights, list(adapters), config=json.loads((base / "config.json").read_text()), options=options)
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)
    unmerge_(weights, saved)
    assert all(torch.equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_a_narrow_base_is_rounded_once(dtype: str, tmp_path: Path) -> None:
    """Wide and narrow outputs come from one float32 sum."""
    _, base, adapters = pair("ranks", tmp_path)
    registry, blend = connect(tmp_path / "registry"), Blend("ties", 0.5)
    registry.merge(base, adapters, tmp_path / "wide", options=MergeOptions(blend=blend), device="cpu")
    registry.merge(base, adapters, tmp_path / "narrow", options=MergeOptions(blend=blend, dtype=dtype), device="cpu")
    wide, narrow = (load_file(tmp_path / name / "model.safetensors") for name in ("wide", "narrow"))
    assert all(torch.equal(wide[name].to(narrow[name].dtype), narrow[name]) for name in wide)


def test_an_interrupted_merge_goes_on_only_with_the_same_method(tmp_path: Path) -> None:
    _, base, adapters = pair("ranks", tmp_path)
    registry = connect(tmp_path / "registry")
    wanted = MergeOptions(blend=Blend("dare_ties", 0.5, 1), max_shard_bytes=4000)
    registry.merge(base, adapters, tmp_path / "whole", options=wanted, device="cpu")
    done = 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done > 12_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.merge(base, adapters, tmp_path / "out", options=wanted, device="cpu", progress=interrupt)
    other = replace(wanted, blend=Blend("dare_ties", 0.5, 2))
    with pytest.raises(ConflictError):
        registry.merge(base, adapters, tmp_path / "out", options=other, device="cpu", resume=True)
    registry.merge(base, adapters, tmp_path / "out", options=wanted, device="cpu", resume=True)
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
