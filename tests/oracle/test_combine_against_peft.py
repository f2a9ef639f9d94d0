"""A combination is the sum of the deltas that PEFT itself makes of each adapter; and it loads in PEFT without a word."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from registry.connect import connect
from registry.errors import RegistryError
from registry.plans.merge_plan import MergeOptions
from tests.oracle import tiny_models as tiny
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}

#: Pairs of adapters of one model, as different as they may be.
PAIRS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "ranks": (tiny.llama, {"r": 2, **LM}, {"r": 5, "lora_alpha": 3, **LM}),
    "targets": (tiny.llama, {"target_modules": ["q_proj", "down_proj"], **LM}, {"target_modules": ["v_proj"], **LM}),
    "rslora": (tiny.llama, {"use_rslora": True, "lora_alpha": 4, **LM}, {"r": 3, **LM}),
    "patterns": (
        tiny.llama,
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {r"layers\.0\..*q_proj": 11}, **LM},
        {"layers_to_transform": [1], "target_modules": ["q_proj"], **LM},
    ),
    "embeddings": (tiny.llama, {"target_modules": ["embed_tokens", "q_proj"], **LM}, {"target_modules": ["embed_tokens"], **LM}),
    "conv1d": (
        tiny.gpt2,
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, **LM},
        {"target_modules": ["c_attn"], "fan_in_fan_out": True, **LM},
    ),
    "convolutions": (tiny.Layers, {"target_modules": ["c1", "c2", "c3", "lin0"]}, {"target_modules": ["c2", "emb"], "r": 3}),
    "experts": (
        tiny.ExpertBlocks,
        {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        {"target_modules": [], "target_parameters": ["experts.down_proj"], "r": 3},
    ),
    "experts that do not meet": (
        tiny.ExpertBlocks,
        {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]},
        {"target_modules": [], "target_parameters": ["experts.down_proj"], "r": 3},
    ),
    "experts, the one inside first": (
        tiny.ExpertBlocks,
        {"target_modules": [], "target_parameters": ["experts.gate_up_proj"], "r": 3},
        {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]},
    ),
    "experts of one rank": (
        tiny.ExpertBlocks,
        {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "r": 3},
    ),
    "biases of B": (tiny.Layers, {"target_modules": ["lin0"], "lora_bias": True}, {"target_modules": ["lin0", "lin1"]}),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def train(make: Any, into: Path, seed: int, options: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(seeded(make), LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], **options}))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(str(into))
    path = into / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "acme/tiny"}))
    return into


def changes(make: Any, adapter: Path, *, silently: bool = False) -> dict[str, Tensor]:
    """The dense delta of every adapted module, and the bias that it adds, by PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("error" if silently else "ignore")
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(seeded(make), str(adapter))
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in (*module.lora_A, *module.lora_embedding_A):
            key = f"{name}.{module.parameter_name}" if isinstance(module, ParamWrapper) else name
            found[key.replace(".base_layer", "")] = module.get_delta_weight("default").detach().double()
            bias = module.lora_B["default"].bias if "default" in module.lora_B else None
            if bias is not None:
                found[f"{key} bias"] = bias.detach().double() * module.scaling["default"]
    return found


def total(parts: list[tuple[dict[str, Tensor], float]]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for part, _ in parts for name in part)
    return {name: sum((part[name] * weight for part, weight in parts if name in part), torch.zeros(())) for name in names}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 2e-6) -> None:
    for name in found.keys() | wanted.keys():
        ours, theirs = found.get(name, torch.zeros(())), wanted.get(name, torch.zeros(()))
        size = max(float(theirs.norm()), 1e-3)
        assert float((ours - theirs).norm()) <= tolerance * size, name


@pytest.mark.parametrize("pair", PAIRS)
def test_the_sum_is_what_peft_makes_of_each(pair: str, tmp_path: Path) -> None:
    make, first, second = PAIRS[pair]
    one, other = train(make, tmp_path / "one", 1, first), train(make, tmp_path / "other", 2, second)
    done = connect(tmp_path / "registry").combine([(one, 0.7), (other, -0.3)], tmp_path / "both")
    wanted = total([(changes(make, one), 0.7), (changes(make, other), -0.3)])
    same(changes(make, tmp_path / "both", silently=True), wanted)
    assert done.error < 1e-6
    assert done.discarded == 0
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert not config.get("use_rslora")
    exact = [layer.exact_rank for layer in done.layers]
    if "experts" in pair:  # of which PEFT heeds no pattern without saying that it had not
        exact = [max(exact) if ".experts." in layer.path else layer.exact_rank for layer in done.layers]
    assert [layer.rank for layer in done.layers] == exact


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.proj = nn.Linear(8, 8), nn.Linear(8, 8)


class Towers(nn.Module):
    """``lin`` is the end of the names of other modules, and so is ``a.lin``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.lin, self.tower = Tower(), nn.Linear(8, 8), nn.ModuleDict({"a": Tower()})


#: How the parents say what they are of.
ENDS: dict[str, tuple[dict[str, Any], ...]] = {
    "an expression": ({"target_modules": "lin"}, {"target_modules": "lin"}),
    "one alone": ({"target_modules": r"a\..*|lin"},),
    "other expressions": ({"target_modules": r"a\..*|lin"}, {"target_modules": "lin"}),
    "an expression and names": ({"target_modules": "lin"}, {"target_modules": ["proj"]}),
    "names, but for some": ({"target_modules": ["lin"], "exclude_modules": ["a.lin"]}, {"target_modules": ["proj"]}),
    "the end itself": ({"target_modules": ["lin"]}, {"target_modules": "lin"}),
}


@pytest.mark.parametrize("case", ENDS)
def test_modules_that_have_no_factors_are_not_adapted(case: str, tmp_path: Path) -> None:
    adapters = [train(Towers, tmp_path / str(n), n, {"r": 2 + n, **options}) for n, options in enumerate(ENDS[case])]
    connect(tmp_path / "registry").combine(adapters, tmp_path / "both")
    wanted = total([(changes(Towers, one), 1.0) for one in adapters])
    found = changes(Towers, tmp_path / "both", silently=True)
    assert found.keys() == wanted.keys()
    same(found, wanted)


def test_names_that_are_enough_stay_names(tmp_path: Path) -> None:
    """Which more programs read than expressions."""
    layers = [r".*layers\.0.*q_proj", r".*layers\.1.*(q|k)_proj"]
    adapters = [train(tiny.llama, tmp_path / str(n), n, {"target_modules": asked, **LM}) for n, asked in enumerate(layers)]
    connect(tmp_path / "registry").combine(adapters, tmp_path / "both")
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert config["target_modules"] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
        "model.layers.1.self_attn.q_proj",
    ]
    changes(tiny.llama, tmp_path / "both", silently=True)


NOTHING: dict[str, dict[str, Any]] = {
    "another head": {"modules_to_save": ["lm_head"], **LM},
    "dora": {"use_dora": True, **LM},
    "biases": {"bias": "lora_only", **LM},
    "tokens": {"trainable_token_indices": {"embed_tokens": [1, 2]}, **LM},
    "another task": {"task_type": "SEQ_CLS"},
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("other", NOTHING)
def test_with_weight_0_an_adapter_is_as_if_it_had_not_been_named(other: str, place: int, tmp_path: Path) -> None:
    """In the file, in the config, and in what is refused."""
    one = train(tiny.llama, tmp_path / "one", 1, {"r": 3, **LM})
    options = NOTHING[other]
    make = tiny.classifier if options.get("task_type") == "SEQ_CLS" else tiny.llama
    ignored = train(make, tmp_path / "ignored", 2, options)
    both: list[tuple[Path, float]] = [(one, 0.5)]
    both.insert(place, (ignored, 0.0))
    registry = connect(tmp_path / "registry")
    registry.combine([(one, 0.5)], tmp_path / "alone")
    registry.combine(both, tmp_path / "with")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize(("weights", "said"), [((0.5, 0.5), False), ((0.7, 0.2), True), ((1.0, 1.0), True)])
def test_a_head_is_replaced_whole_and_weights_that_say_otherwise_are_said(
    weights: tuple[float, float], said: bool, tmp_path: Path
) -> None:
    one, other = (train(tiny.llama, tmp_path / str(seed), seed, {"modules_to_save": ["lm_head"], **LM}) for seed in (1, 2))
    head = load_file(one / "adapter_model.safetensors")["base_model.model.lm_head.weight"]
    tensors = load_file(other / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.lm_head.weight": head}, other / "adapter_model.safetensors")
    done = connect(tmp_path / "registry").combine(list(zip((one, other), weights, strict=True)), tmp_path / "both")
    assert ("weight-without-effect" in [finding.rule for finding in done.findings]) is said
    assert torch.equal(load_file(tmp_path / "both" / "adapter_model.safetensors")["base_model.model.lm_head.weight"], head)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_copies_that_were_rounded_the_exact_one_is_kept(order: tuple[int, int], tmp_path: Path) -> None:
    options = {"target_modules": ["embed_tokens", "q_proj"], **LM}
    adapters = [train(tiny.llama, tmp_path / str(seed), seed, options) for seed in (1, 2)]
    narrow = adapters[1] / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(narrow).items()}, narrow)
    connect(tmp_path / "registry").combine([adapters[number] for number in order], tmp_path / "both")
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    exact = load_file(adapters[0] / "adapter_model.safetensors")[name]
    assert torch.equal(load_file(tmp_path / "both" / "adapter_model.safetensors")[name], exact)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.complex64])
def test_factors_of_other_types_are_widened_or_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"r": 2, **LM})
    path = one / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    registry = connect(tmp_path / "registry")
    if dtype.is_floating_point:
        assert registry.combine([one], tmp_path / "out").error < 1e-6
        return
    for ask in (lambda: registry.combine([one], tmp_path / "out"), lambda: registry.inspect(one)):
        with pytest.raises(RegistryError, match="no real floating number"):
            ask()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("types", "stored"),
    [
        ((torch.float32, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
    ],
)
def test_all_factors_have_the_widest_type_of_any_adapter(
    types: tuple[torch.dtype, torch.dtype], stored: torch.dtype, tmp_path: Path
) -> None:
    """Layers that only one adapter has are no exception: in a narrower type they would lose what others keep."""
    adapters = []
    for number, (dtype, target) in enumerate(zip(types, ("q_proj", "o_proj"), strict=True)):
        adapter = train(tiny.llama, tmp_path / str(number), number, {"target_modules": [target], "lora_alpha": 3, "r": 5, **LM})
        path = adapter / "adapter_model.safetensors"
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
        adapters.append((adapter, 0.7))
    done = connect(tmp_path / "registry").combine(adapters, tmp_path / "both")
    assert {tensor.dtype for tensor in load_file(tmp_path / "both" / "adapter_model.safetensors").values()} == {stored}
    tolerance = 2e-6 if stored == torch.float32 else 1e-2
    same(changes(tiny.llama, tmp_path / "both"), total([(changes(tiny.llama, one), w) for one, w in adapters]), tolerance)
    assert done.error < tolerance


BOTH = {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True, **LM}


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"energy": 0.9}, {"max_bytes": 6000}, {"dtype": "BF16"}])
@pytest.mark.parametrize("other", [BOTH, {"target_modules": ["q_proj"], **LM}])
def test_what_was_trained_as_one_stays_one(other: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    """The combination merges into a tied base as the adapters do, which stays tied."""
    adapters = [train(tiny.tied_llama, tmp_path / "one", 1, BOTH), train(tiny.tied_llama, tmp_path / "other", 2, other)]
    base = tmp_path / "base"
    seeded(tiny.tied_llama).save_pretrained(base)  # type: ignore[operator]
    registry = connect(tmp_path / "registry")
    done = registry.combine(adapters, tmp_path / "both", **options)
    allow = MergeOptions(allow=frozenset({"base-id"}))
    registry.merge(base, [tmp_path / "both"], tmp_path / "merged", options=allow)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is True
    found = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    wanted = total([(changes(tiny.tied_llama, one), 1.0) for one in adapters])
    name = "model.embed_tokens.weight"
    delta = next(value for key, value in wanted.items() if key.endswith("embed_tokens"))
    apart = float((found[name].double() - before[name].double() - delta.reshape(before[name].shape)).norm())
    rounding = 4e-3 if options.get("dtype") == "BF16" else 1e-6
    assert apart <= (done.error + rounding) * done.norm + 1e-6


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_a_method_keeps_the_share_that_was_asked_for_or_all_it_may(energy: float, tmp_path: Path) -> None:
    adapters = [train(tiny.llama, tmp_path / str(seed), seed, {"r": 6, **LM}) for seed in (1, 2)]
    done = connect(tmp_path / "registry").combine(adapters, tmp_path / "both", method="ties", energy=energy)
    for layer in done.layers:
        kept = 1 - layer.discarded**2
        assert kept >= energy * (1 - 1e-9) or layer.rank == min(layer.exact_rank, 16), layer


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("pair", ["ranks", "embeddings", "conv1d", "convolutions", "experts"])
def test_a_truncation_is_the_dense_optimum_and_says_its_error(pair: str, rank: int, tmp_path: Path) -> None:
    make, first, second = PAIRS[pair]
    one, other = train(make, tmp_path / "one", 1, first), train(make, tmp_path / "other", 2, second)
    done = connect(tmp_path / "registry").combine([one, other], tmp_path / "both", rank=rank)
    wanted = total([(changes(make, one), 1.0), (changes(make, other), 1.0)])
    found = changes(make, tmp_path / "both", silently=True)
    assert found.keys() == wanted.keys()
    errors = {}
    for name, dense in wanted.items():
        matrices = dense if dense.dim() == 3 and "experts" in name else dense.flatten(1).unsqueeze(0)
        optimum = torch.linalg.vector_norm(torch.linalg.svdvals(matrices)[:, rank:])
        distance = (found[name] - dense).norm()
        assert float(distance) == pytest.approx(float(optimum), rel=1e-4, abs=1e-5)
        errors[name] = float(distance)
    size = float(torch.linalg.vector_norm(torch.stack([dense.norm() for dense in wanted.values()])))
    assert done.error * done.norm == pytest.approx(float(torch.tensor(list(errors.values())).norm()), rel=1e-4, abs=1e-5)
    assert done.norm == pytest.approx(size, rel=1e-5)
    assert done.error == pytest.approx(done.discarded, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("options", [{"energy": 0.9}, {"max_bytes": 0.9}, {"method": "ties"}, {"dtype": "BF16"}, {"rank": 2}])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_form_loads_in_peft_without_a_word_and_is_what_was_said(
    pair: str, options: dict[str, Any], tmp_path: Path
) -> None:
    make, first, second = PAIRS[pair]
    adapters = [train(make, tmp_path / "one", 1, first), train(make, tmp_path / "other", 2, second)]
    registry = connect(tmp_path / "registry")
    exact = registry.combine(adapters, tmp_path / "exact")
    if "max_bytes" in options:
        options = {"max_bytes": int(exact.bytes * options["max_bytes"])}
    done = registry.combine(adapters, tmp_path / "both", **options)
    assert done.bytes <= options.get("max_bytes", done.bytes)
    found = changes(make, tmp_path / "both", silently=True)
    wanted = changes(make, tmp_path / "exact", silently=True)
    assert found.keys() == wanted.keys()
    if options.get("method") is None:
        names = [name for name in wanted if not name.endswith(" bias")]
        apart = sum(float((found[name] - wanted[name]).square().sum()) for name in names) ** 0.5
        assert apart == pytest.approx(done.error * done.norm, rel=2e-3, abs=2e-6 * done.norm)


def test_peft_svd_finds_the_same_optimum(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"r": 4, **LM})
    other = train(tiny.llama, tmp_path / "other", 2, {"r": 4, **LM})
    connect(tmp_path / "registry").combine([(one, 0.6), (other, 0.4)], tmp_path / "both", rank=4)
    model = PeftModel.from_pretrained(seeded(tiny.llama), str(one), adapter_name="one")
    model.load_adapter(str(other), "other")
    model.add_weighted_adapter(["one", "other"], [0.6, 0.4], "svd", combination_type="svd", svd_rank=4)
    model.set_adapter("svd")
    theirs = {
        name: module.get_delta_weight("svd").detach().double()
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    same(changes(tiny.llama, tmp_path / "both"), theirs, tolerance=1e-5)


def test_combining_then_merging_is_merging_both_at_once(tmp_path: Path) -> None:
    one = train(tiny.llama, tmp_path / "one", 1, {"r": 2, **LM})
    other = train(tiny.llama, tmp_path / "other", 2, {"r": 3, "target_modules": ["q_proj", "up_proj"], **LM})
    base: nn.Module = seeded(tiny.llama)
    base.save_pretrained(tmp_path / "base")  # type: ignore[operator]
    registry = connect(tmp_path / "registry")
    registry.combine([(one, 0.7), (other, -0.3)], tmp_path / "both")
    registry.merge(tmp_path / "base", [tmp_path / "both"], tmp_path / "first", device="cpu")
    registry.merge(tmp_path / "base", [(one, 0.7), (other, -0.3)], tmp_path / "second", device="cpu")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)


def test_a_version_names_its_parents_and_starts_without_scores(tmp_path: Path) -> None:
    registry = connect(tmp_path / "registry")
    one = registry.push(train(tiny.llama, tmp_path / "one", 1, LM), name="one", evaluations=["acc=0.9"]).version
    other = registry.push(train(tiny.llama, tmp_path / "other", 2, LM), name="other").version
    done = registry.combine([("one", 0.7), ("other", 0.3)], name="both", rank=2)
    assert done.version is not None
    shown = registry.show("both")
    assert [(edge.parent, edge.kind, edge.weight) for edge in shown.manifest.lineage] == [
        (one.digest, "combined-from", 0.7),
        (other.digest, "combined-from", 0.3),
    ]
    assert shown.evaluations == ()
    assert shown.manifest.training["combine"]["error"] == pytest.approx(done.error)  # type: ignore[index]
    assert {target.scaling for target in shown.manifest.targets} == {1.0}
