"""Several adapters, weights, other types, and numbers that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig
from safetensors.torch import load_file

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.merge_oracle import DTYPES, Tensors, config_of, loaded, logits, merged, refusal, tensors_of
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Q = "model.layers.0.self_attn.q_proj"
QUERY = f"{Q}.weight"
LM: dict[str, Any] = {"r": 2, "task_type": "CAUSAL_LM"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


def adapter(place: Path, seed: int = 1, **options: Any) -> Path:
    config = LoraConfig(**{**LM, "target_modules": ["q_proj", "k_proj"], **options})
    return oracle.train(seeded(tiny.llama), config, place, seed=seed)


def base_of(place: Path, dtype: torch.dtype = torch.float32) -> Path:
    return oracle.save_base(seeded(tiny.llama).to(dtype), place)


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8)) for name in one
    )


def delta(directory: Path, path: str) -> torch.Tensor:
    """In float64, with a scaling of 1."""
    factors = load_file(directory / oracle.WEIGHTS)
    up, down = (factors[f"base_model.model.{path}.lora_{side}.weight"].double() for side in "BA")
    return up @ down


@pytest.mark.parametrize("kind", DTYPES)
def test_several_are_summed_before_the_one_rounding(kind: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", DTYPES[kind])
    before = tensors_of(base)
    first = adapter(tmp_path / "first", lora_alpha=8)
    second = adapter(tmp_path / "second", seed=2, r=3, use_rslora=True, target_modules=["q_proj", "v_proj"])
    third = adapter(tmp_path / "third", seed=3, target_modules=["q_proj"])
    out = merged(base, [(first, 0.5), (second, -2.0), third], tmp_path / "out")
    scalings = [(first, 0.5 * 4), (second, -2.0 * 8 / 3**0.5), (third, 4.0)]
    exact = before[QUERY].double() + sum(factor * delta(one, Q) for one, factor in scalings)
    assert oracle.excess(out[QUERY], exact, before[QUERY]) < 1.5
    value = before[QUERY.replace("q_proj", "v_proj")]
    expected = value.double() - 16 / 3**0.5 * delta(second, Q.replace("q_proj", "v_proj"))
    assert oracle.excess(out[QUERY.replace("q_proj", "v_proj")], expected, value) < 1
    other = merged(base, [third, (second, -2.0), (first, 0.5)], tmp_path / "other")
    apart = oracle.steps(out[QUERY], other[QUERY])
    assert int((apart > 0).sum()) <= (0.01 if kind != "fp32" else 0.6) * apart.numel()
    assert all(torch.equal(out[name], other[name]) for name in out if ".q_proj." not in name)


@pytest.mark.parametrize("kind", DTYPES)
def test_plus_and_minus_and_nothing(kind: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", DTYPES[kind])
    before = tensors_of(base)
    one = adapter(tmp_path / "one")
    assert same(merged(base, [(one, 1.0), (one, 0.0)], tmp_path / "once"), merged(base, one, tmp_path / "plain"))
    out = merged(base, [one, (one, -1.0)], tmp_path / "both")
    for name in before:
        largest = max(float(before[name].abs().max()), float(4 * delta(one, Q).abs().max()))
        assert float((out[name].double() - before[name].double()).abs().max()) <= 2**-23 * largest
    assert same(
        {name: out[name] for name in out if "_proj" not in name}, {n: before[n] for n in before if "_proj" not in n}
    )
    nothing = merged(base, [(one, 0.0)], tmp_path / "nothing")
    assert same(nothing, before)
    assert (tmp_path / "nothing" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert config_of(tmp_path / "nothing") == config_of(base)


#: Adapters that are no sum: a weight other than 1 is refused by a rule.
REPLACING: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "weight-on-dora"),
    "saved": ({"modules_to_save": ["mlp"]}, "weight-on-replacement"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "weight-on-replacement"),
}


def test_weights_on_what_replaces(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base")
    for name, (options, rule) in REPLACING.items():
        one = adapter(tmp_path / name, **options)
        for weight in (0.5, -1.0, 2.0):
            assert refusal(base, [(one, weight)], tmp_path / "out") == rule
        merged(base, [(one, 1.0)], tmp_path / name / "out")
    layers = oracle.save_base(seeded(tiny.Layers), tmp_path / "layers")
    for bias in ("all", "lora_only"):
        config = LoraConfig(r=2, target_modules=["lin0"], bias=bias)
        one = oracle.train(seeded(tiny.Layers), config, tmp_path / bias)
        assert refusal(layers, [(one, 0.5)], tmp_path / "out") == "weight-on-replacement"
    config = LoraConfig(r=2, target_modules=["lin0"], lora_bias=True)
    one = oracle.train(seeded(tiny.Layers), config, tmp_path / "lora-bias")
    before, out = tensors_of(layers), merged(layers, [(one, 0.5)], tmp_path / "lora-bias" / "out")
    trained = load_file(one / oracle.WEIGHTS)["base_model.model.lin0.lora_B.bias"]
    exact = before["lin0.bias"].double() + 0.5 * 4 * trained.double()
    assert oracle.excess(out["lin0.bias"], exact, before["lin0.bias"]) < 1


def test_what_cannot_stand_beside_each_other(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base")
    plain = adapter(tmp_path / "plain")
    dora = adapter(tmp_path / "dora", use_dora=True)
    elsewhere = adapter(tmp_path / "elsewhere", seed=3, use_dora=True, target_modules=["v_proj"])
    assert refusal(base, [dora, dora], tmp_path / "out") == "stacked"
    assert refusal(base, [plain, dora], tmp_path / "out") == "stacked"
    both = merged(base, [plain, elsewhere], tmp_path / "both")
    alone = merged(base, elsewhere, tmp_path / "alone")
    value = QUERY.replace("q_proj", "v_proj")
    assert torch.equal(both[value], alone[value])
    saved = adapter(tmp_path / "saved", modules_to_save=["lm_head"], target_modules=["v_proj"])
    other = adapter(tmp_path / "other", seed=2, modules_to_save=["lm_head"], target_modules=["v_proj"])
    assert refusal(base, [saved, other], tmp_path / "out") == "replacements-differ"
    head = load_file(saved / oracle.WEIGHTS)["base_model.model.lm_head.weight"]
    again = oracle.altered(other, tmp_path / "again", lambda one: {**one, "base_model.model.lm_head.weight": head})
    out = merged(base, [saved, again], tmp_path / "agree")
    assert torch.equal(out["lm_head.weight"], head)
    trained = adapter(tmp_path / "trained", target_modules=["lm_head", "q_proj"])
    assert refusal(base, [saved, trained], tmp_path / "out") == "stacked"
    tokens = [
        adapter(tmp_path / f"tokens-{ids}", trainable_token_indices=ids, seed=ids[0]) for ids in ([1, 2], [2, 3], [4])
    ]
    assert refusal(base, tokens[:2], tmp_path / "out") == "stacked"
    rows = merged(base, [tokens[0], tokens[2]], tmp_path / "rows")["model.embed_tokens.weight"]
    stored = [load_file(one / oracle.WEIGHTS) for one in (tokens[0], tokens[2])]
    written = torch.cat(
        [one["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] for one in stored]
    )
    assert torch.equal(rows[[1, 2, 4]], written)
    untouched = [row for row in range(len(rows)) if row not in {1, 2, 4}]
    assert torch.equal(rows[untouched], tensors_of(base)["model.embed_tokens.weight"][untouched])


def test_overflow_is_an_error_and_no_infinity(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", torch.float16)
    one = adapter(tmp_path / "one")
    large = oracle.altered(one, tmp_path / "large", lambda all_: {k: 4000 * v for k, v in all_.items()})
    assert refusal(base, large, tmp_path / "out") == "overflow"
    assert refusal(base, [(one, 1e6)], tmp_path / "out") == "overflow"
    wide = merged(base, large, tmp_path / "wide", dtype="BF16")
    exact = tensors_of(base)[QUERY].double() + 4 * delta(large, Q)
    assert float(exact.abs().max()) > 65504
    assert oracle.excess(wide[QUERY], exact, None) < 1
    untouched = {name: tensor.bfloat16() for name, tensor in tensors_of(base).items() if "_proj" not in name}
    assert same({name: wide[name] for name in untouched}, untouched)
    full = base_of(tmp_path / "full")
    assert refusal(full, large, tmp_path / "out", dtype="F16") == "overflow"


def test_what_is_no_number_is_damage(tmp_path: Path) -> None:
    """In the base where it is changed, and in any tensor of the adapter; nothing is left behind."""
    one = adapter(tmp_path / "one")
    for bad in (float("nan"), float("inf")):
        model: Any = seeded(tiny.llama)
        with torch.no_grad():
            model.model.layers[1].self_attn.k_proj.weight[3, 5] = bad
        base = oracle.save_base(model, tmp_path / f"base {bad}")
        assert refusal(base, one, tmp_path / "out") == "damaged: nonfinite-tensor"
        for side in ("A", "B"):
            name = f"base_model.model.{Q}.lora_{side}.weight"
            damaged = oracle.altered(one, tmp_path / f"{bad} {side}", lambda all_: _spoiled(all_, name, bad))  # noqa: B023
            assert refusal(base_of(tmp_path / f"good {bad} {side}"), damaged, tmp_path / "out") == "damaged: nonfinite"


def _spoiled(tensors: Tensors, name: str, value: float) -> Tensors:
    spoiled = tensors[name].clone()
    spoiled[0, 0] = value
    return {**tensors, name: spoiled}


@pytest.mark.parametrize("kind", DTYPES)
def test_casts_of_everything(kind: str, tmp_path: Path) -> None:
    names = {"bf16": ("BF16", "bfloat16"), "fp16": ("F16", "float16"), "fp32": ("F32", "float32")}
    base = base_of(tmp_path / "base", DTYPES[kind])
    before = tensors_of(base)
    one = adapter(tmp_path / "one")
    for other, dtype in DTYPES.items():
        out = merged(base, one, tmp_path / other, dtype=names[other][0])
        assert {tensor.dtype for tensor in out.values()} == {dtype}
        assert config_of(tmp_path / other)["dtype"] == names[other][1]
        assert oracle.excess(out[QUERY], before[QUERY].double() + 4 * delta(one, Q), before[QUERY]) < 1
        untouched = {name: tensor.to(dtype) for name, tensor in before.items() if "_proj" not in name}
        assert same({name: out[name] for name in untouched}, untouched)
        model = loaded(hf.AutoModelForCausalLM, tmp_path / other)
        assert model.dtype == dtype
        assert bool(torch.isfinite(logits(model)).all())
    kept = merged(base, one, tmp_path / "kept")
    assert same(kept, tensors_of(tmp_path / kind))
    assert config_of(tmp_path / "kept") == config_of(base)
