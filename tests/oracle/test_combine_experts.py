"""Adapters of a mixture, expert by expert: PEFT stacks their factors, and takes all of them for of the config's rank."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import connect
from registry.errors import UncombinableError
from registry.operations.combined import Combined
from tests.oracle import tiny_models as tiny
from tests.oracle.test_combine_against_peft import changes, same, total, train
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
#: Module → (out, in), as transformers before 5 has them in a mixture of the tiny model's size.
EXPERT = {"w1": (24, 16), "w2": (16, 24), "w3": (24, 16)}
ATTENTION = {"q_proj": (16, 16), "k_proj": (16, 16)}
Parts = list[tuple[Path, float]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write(into: Path, seed: int, rank: int, attention: str = "q_proj", layers: tuple[int, ...] = (0, 1), gate: int = 0) -> Path:
    """As PEFT saved it there: a layer for each expert. ``gate`` is the rank of the routers."""
    into.mkdir()
    shapes: dict[str, tuple[int, int, int]] = {}
    for layer in layers:
        mixture = f"model.layers.{layer}.block_sparse_moe"
        shapes |= {f"{mixture}.experts.{n}.{name}": (*EXPERT[name], rank) for n in range(4) for name in EXPERT}
        shapes[f"model.layers.{layer}.self_attn.{attention}"] = (*ATTENTION[attention], rank)
        if gate:
            shapes[f"{mixture}.gate"] = (4, 16, gate)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, (out, inputs, of) in shapes.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = 0.3 * torch.randn(of, inputs, generator=generator)
        tensors[f"base_model.model.{path}.lora_B.weight"] = 0.3 * torch.randn(out, of, generator=generator)
    save_file(tensors, into / "adapter_model.safetensors")
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": [*EXPERT, attention, *(["gate"] if gate else [])],
        "task_type": "CAUSAL_LM",
        "layers_to_transform": None if len(layers) == 2 else list(layers),
    }
    (into / "adapter_config.json").write_text(json.dumps(config))
    return into


def sum_of(parts: Parts) -> dict[str, Tensor]:
    return total([(changes(tiny.mixtral, adapter), weight) for adapter, weight in parts])


def norm(deltas: Mapping[str, Tensor]) -> float:
    return sum(float(delta.square().sum()) for delta in deltas.values()) ** 0.5


def is_as_said(made: Path, done: Combined, wanted: Mapping[str, Tensor]) -> None:
    """As far from what is wanted as was said."""
    found = changes(tiny.mixtral, made)
    assert found.keys() == wanted.keys()
    apart = norm({name: found[name] - wanted[name] for name in wanted}) / norm(wanted)
    assert apart == pytest.approx(done.error, rel=1e-4, abs=1e-6)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return [(write(tmp_path / "one", 1, 2), 0.5), (write(tmp_path / "other", 2, 3, "k_proj"), -0.7)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 1},
        {"energy": 0.8},
        {"energy": 0.99, "rank": 4},
        {"max_bytes": 20_000},
        {"max_bytes": 30_000, "rank": 4},
        {"method": "ties", "energy": 0.6},
    ],
)
def test_the_experts_have_one_rank_and_peft_reads_what_was_said(
    options: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    done = connect(tmp_path / "registry").combine(parts, tmp_path / "both", **options)
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert {layer.rank for layer in done.layers if ".experts." in layer.path} == {config["r"]}
    assert config["r"] <= options.get("rank", 5)
    assert done.bytes <= options.get("max_bytes", done.bytes)
    if "method" in options:
        changes(tiny.mixtral, tmp_path / "both")
        return
    wanted = sum_of(parts)
    is_as_said(tmp_path / "both", done, wanted)


def shared_optimum(wanted: Mapping[str, Tensor], rank: int) -> float:
    """What is left away of the experts where each keeps its best approximation of that rank, w1 and w3 by themselves."""
    left = 0.0
    for name, delta in wanted.items():
        if "experts" in name:
            halves = delta.chunk(2, dim=1) if name.endswith("gate_up_proj") else [delta]
            left += sum(float(torch.linalg.svdvals(half)[:, rank:].square().sum()) for half in halves)
    return left**0.5


def test_a_shared_rank_is_used_by_every_expert(parts: Parts, tmp_path: Path) -> None:
    """Where one needs it, the others have no zeros there that could be numbers."""
    done = connect(tmp_path / "registry").combine(parts, tmp_path / "both", energy=0.8)
    wanted = sum_of(parts)
    experts = [layer for layer in done.layers if ".experts." in layer.path]
    lost = sum((layer.discarded * layer.norm) ** 2 for layer in experts) ** 0.5
    assert lost == pytest.approx(shared_optimum(wanted, experts[0].rank), rel=1e-4)
    assert any(layer.discarded**2 > 0.2 * (1 - 1e-6) for layer in one_less(parts, tmp_path, experts[0].rank))
    assert all(layer.discarded**2 <= 0.2 * (1 + 1e-6) for layer in done.layers)


def one_less(parts: Parts, place: Path, rank: int) -> list[Any]:
    done: Combined = connect(place / "registry").combine(parts, place / "less", rank=rank - 1)
    return [layer for layer in done.layers if ".experts." in layer.path]


def test_compressing_one_keeps_it_loadable(parts: Parts, tmp_path: Path) -> None:
    one = parts[1][0]
    done = connect(tmp_path / "registry").combine([one], tmp_path / "less", energy=0.8)
    wanted = changes(tiny.mixtral, one)
    is_as_said(tmp_path / "less", done, wanted)


def test_an_adapter_of_one_layer_and_one_of_all(parts: Parts, tmp_path: Path) -> None:
    single = write(tmp_path / "single", 5, 2, layers=(1,))
    connect(tmp_path / "registry").combine([single, parts[0][0]], tmp_path / "both")
    same(changes(tiny.mixtral, tmp_path / "both"), sum_of([(single, 1.0), (parts[0][0], 1.0)]))


@pytest.mark.parametrize("options", [{}, {"energy": 0.9}])
@pytest.mark.parametrize("layers", [(0, 1), (1,)])
def test_routers_have_the_rank_of_the_experts(layers: tuple[int, ...], options: dict[str, Any], tmp_path: Path) -> None:
    parts: Parts = [
        (write(tmp_path / "one", 1, 2, layers=layers, gate=2), 1.0),
        (write(tmp_path / "other", 2, 3, "k_proj"), 1.0),
    ]
    done = connect(tmp_path / "registry").combine(parts, tmp_path / "both", **options)
    is_as_said(tmp_path / "both", done, sum_of(parts))


def test_routers_alone_too(tmp_path: Path) -> None:
    """PEFT takes a router's layer for a parameter, which no pattern of the layer is about."""
    parts: Parts = []
    for seed, rank, attention in ((1, 2, "q_proj"), (2, 3, "k_proj")):
        adapter = write(tmp_path / str(seed), seed, rank, attention, gate=rank if seed == 1 else 0)
        path = adapter / "adapter_model.safetensors"
        save_file({name: value for name, value in load_file(path).items() if ".experts." not in name}, path)
        config = json.loads((adapter / "adapter_config.json").read_text())
        names = [name for name in config["target_modules"] if name not in EXPERT]
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": names}))
        parts.append((adapter, 1.0))
    connect(tmp_path / "registry").combine(parts, tmp_path / "both")
    same(changes(tiny.mixtral, tmp_path / "both"), sum_of(parts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        PeftModel.from_pretrained(seeded(tiny.mixtral), str(tmp_path / "both"))


def test_experts_one_by_one_and_fused_are_no_adapter_of_one_model(parts: Parts, tmp_path: Path) -> None:
    """Which PEFT could not load."""
    options = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "r": 3}
    fused = train(tiny.mixtral, tmp_path / "fused", 3, {**options, "task_type": "CAUSAL_LM"})
    path = fused / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    registry = connect(tmp_path / "registry")
    for asked in ([parts[0][0], fused], [fused, parts[0][0]]):
        with pytest.raises(UncombinableError) as caught:
            registry.combine(asked, tmp_path / "both")
        assert caught.value.code == "experts-laid-out-otherwise"
    assert not (tmp_path / "both").exists()
    registry.combine([fused, fused], tmp_path / "both")
    same(changes(tiny.mixtral, tmp_path / "both", silently=True), sum_of([(fused, 2.0)]))
