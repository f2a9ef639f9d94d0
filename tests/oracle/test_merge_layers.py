"""Layers that are stored another way than their formula has them, adapters of some layers, and tensors that belong nowhere."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.merge_oracle import Tensors, excess, merged, refusal, tensors_of
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

IN_FILE = "base_model.model."
LM: dict[str, Any] = {"r": 2, "task_type": "CAUSAL_LM"}
PARTIAL = frozenset({"partial"})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf.logging.set_verbosity_error()


def pair(tensors: Tensors, path: str) -> tuple[Tensor, Tensor]:
    """B and A in float64."""
    up, down = (tensors[f"{IN_FILE}{path}.lora_{side}.weight"].double() for side in "BA")
    return up, down


def written(place: Path, factors: Tensors, **config: Any) -> Path:
    """An adapter without PEFT's help."""
    place.mkdir(parents=True)
    save_file(factors, place / oracle.WEIGHTS)
    fields = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": "acme/tiny",
        "peft_version": "0.21.2",
    }
    (place / oracle.CONFIG).write_text(json.dumps({**fields, **config}))
    return place


def test_square_conv1d(tmp_path: Path) -> None:
    """GPT-2's c_proj is square, and nothing in the file says that it is stored (in, out)."""
    base = oracle.save_base(seeded(tiny.gpt2).to(torch.bfloat16), tmp_path / "base")
    before = tensors_of(base)
    path = "transformer.h.0.attn.c_proj"
    old = before[f"{path}.weight"]
    assert old.shape == (16, 16)
    for flag in (True, False):  # PEFT writes either, see the facts about fan_in_fan_out
        config = LoraConfig(**LM, target_modules=["attn.c_proj"], fan_in_fan_out=True)
        adapter = oracle.train(seeded(tiny.gpt2), config, tmp_path / f"{flag}")
        oracle.edit_config(adapter, fan_in_fan_out=flag)
        up, down = pair(load_file(adapter / oracle.WEIGHTS), path)
        out = merged(base, adapter, tmp_path / f"{flag}" / "out")
        assert excess(out[f"{path}.weight"], old.double() + 4 * (up @ down).T, old) < 1


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(6, 8, 3)
        self.plane = nn.Conv2d(6, 8, (3, 2))
        self.dot = nn.Conv2d(6, 8, 1)
        self.room = nn.Conv3d(6, 8, 2)
        self.grouped = nn.Conv2d(6, 8, 3, groups=2)


@pytest.mark.parametrize("kind", oracle.DTYPES)
def test_convolutions(kind: str, tmp_path: Path) -> None:
    base = oracle.save_base(seeded(Convolutions).to(oracle.DTYPES[kind]), tmp_path / "base")
    before = tensors_of(base)
    names = ["line", "plane", "dot", "room"]
    for form in ({}, {"use_dora": True}):
        config = LoraConfig(r=3, target_modules=names, **form)
        adapter = oracle.train(seeded(Convolutions), config, tmp_path / f"{len(form)}")
        tensors = load_file(adapter / oracle.WEIGHTS)
        out = merged(base, adapter, tmp_path / f"{len(form)}" / "out")
        for name in names:
            up, down = pair(tensors, name)
            delta = torch.einsum("or,ri...->oi...", up.flatten(1), down) * 8 / 3
            exact = before[f"{name}.weight"].double() + delta
            if form:
                norm = exact.flatten(1).norm(dim=1).view(-1, *[1] * (exact.dim() - 1))
                exact = tensors[f"{IN_FILE}{name}.lora_magnitude_vector"].double().view_as(norm) / norm * exact
            assert excess(out[f"{name}.weight"], exact, before[f"{name}.weight"]) < (4 if form else 2)
            assert torch.equal(out[f"{name}.bias"], before[f"{name}.bias"])
    grouped = written(
        tmp_path / "grouped",
        {
            f"{IN_FILE}grouped.lora_A.weight": torch.ones(2, 3, 3, 3),
            f"{IN_FILE}grouped.lora_B.weight": torch.ones(8, 1, 1, 1),
        },
        target_modules=["grouped"],
    )
    assert refusal(base, grouped, tmp_path / "out") == "grouped-convolution"


def fused(config: Any, place: Path) -> Path:
    """GPT-OSS: experts are stored as they are held, (E, in, out)."""
    torch.manual_seed(0)
    return oracle.save_base(hf.GptOssForCausalLM(config).to(torch.bfloat16), place)


def gpt_oss(width: int = 16, inner: int = 12) -> Any:
    return hf.GptOssConfig(vocab_size=32, hidden_size=width, intermediate_size=inner, num_hidden_layers=1, num_local_experts=4,
                           num_attention_heads=2, num_key_value_heads=2, head_dim=8, layer_types=["full_attention"],
                           num_experts_per_tok=2, pad_token_id=0, eos_token_id=1)  # fmt: skip


_FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("inner", [12, 16])
def test_fused_experts_as_they_are_stored(inner: int, tmp_path: Path) -> None:
    """(E, in, out), with a square down_proj as well."""
    config = gpt_oss(inner=inner)
    base = fused(config, tmp_path / "base")
    before = tensors_of(base)
    names = [f"model.layers.0.{name}" for name in _FUSED]
    assert all(len(before[name].shape) == 3 for name in names), sorted(before)
    model = hf.GptOssForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapter = oracle.train(
        model, LoraConfig(**LM, target_modules=["q_proj"], target_parameters=_FUSED), tmp_path / "adapter"
    )
    tensors = load_file(adapter / oracle.WEIGHTS)
    out = merged(base, adapter, tmp_path / "out")
    stock = oracle.by_peft(
        hf.GptOssForCausalLM.from_pretrained(base, dtype=torch.bfloat16).double(), adapter, tmp_path / "peft"
    )
    for name, path in zip(names, ("model.layers.0.mlp.experts.base_layer", "model.layers.0.mlp.experts"), strict=True):
        up, down = pair(tensors, path)
        stack = torch.einsum("ore,eri->eio", up.view(len(up), 2, 4), down.view(4, 2, -1))
        exact = before[name].double() + 4 * stack
        assert excess(out[name], exact, before[name]) < 1
        assert float((stock[name] - exact).abs().max()) < 1e-12


_DECODER = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32}  # fmt: skip
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}
#: Class → its config: single matrices on disk, fused ones of other names, and fused ones that are stored as they are held.
MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}),
    "DeepseekV3ForCausalLM": ("DeepseekV3Config", {**_ROUTED, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
                                                   "qk_nope_head_dim": 4, "v_head_dim": 8}),
    "PhimoeForCausalLM": ("PhimoeConfig", {"num_local_experts": 4}),
    "GraniteMoeForCausalLM": ("GraniteMoeConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Llama4ForCausalLM": ("Llama4TextConfig", {"head_dim": 8, "num_local_experts": 4, "interleave_moe_layer_step": 1}),
}  # fmt: skip


@pytest.mark.parametrize("inner", [12, 16])
def test_mixtures_of_many_architectures(inner: int, tmp_path: Path) -> None:
    """Both parameters, and each alone, whose name the file then does not say; 16 makes some of them square."""
    for name, (config, sizes) in MIXTURES.items():
        kind = getattr(hf, name)
        torch.manual_seed(0)
        widths = {"intermediate_size": inner, "moe_intermediate_size": inner}
        model = kind(getattr(hf, config)(**_DECODER, **widths, **sizes)).to(torch.bfloat16)
        base = oracle.save_base(model, tmp_path / name / "base")
        before = tensors_of(base)
        for targets in (["experts.gate_up_proj", "experts.down_proj"], ["experts.gate_up_proj"], ["experts.down_proj"]):
            place = tmp_path / name / "+".join(targets)
            first = kind.from_pretrained(base, dtype=torch.bfloat16)
            adapter = oracle.train(
                first, LoraConfig(**LM, target_modules=[], target_parameters=targets), place / "adapter"
            )
            out = merged(base, adapter, place / "out")
            wide = kind.from_pretrained(base, dtype=torch.bfloat16).double()
            exact = oracle.by_peft(wide, adapter, place / "peft")
            assert out.keys() == before.keys() == exact.keys()
            tally = oracle.held_against(out, out, exact, before)
            assert tally.excess < 1, (name, targets)


def unsloth(tensors: Tensors, count: int) -> Tensors:
    """B with the expert slowest, (out, E, r), in place of PEFT's (out, r, E)."""
    return {
        name: each.view(len(each), -1, count).transpose(1, 2).reshape(each.shape).contiguous()
        if ".experts." in name and "lora_B" in name
        else each
        for name, each in tensors.items()
    }


def test_the_packing_of_unsloth(tmp_path: Path) -> None:
    base = oracle.save_base(seeded(tiny.mixtral).to(torch.bfloat16), tmp_path / "base")
    config = LoraConfig(**LM, target_modules=["q_proj"], target_parameters=_FUSED)
    adapter = oracle.train(seeded(tiny.mixtral), config, tmp_path / "adapter")
    right = merged(base, adapter, tmp_path / "right")
    theirs = oracle.altered(adapter, tmp_path / "theirs", partial(unsloth, count=4))
    oracle.edit_config(theirs, base_model_name_or_path="unsloth/mixtral")
    base_id = frozenset({"base-id"})
    assert refusal(base, theirs, tmp_path / "out", allow=base_id) == "experts-layout-ambiguous"
    out = merged(base, theirs, tmp_path / "told", packing="unsloth", allow=base_id)
    assert all(torch.equal(out[name], right[name]) for name in right)
    other = merged(base, theirs, tmp_path / "as-peft", packing="peft", allow=base_id)
    assert any(not torch.equal(other[name], right[name]) for name in right)
    marked = oracle.altered(adapter, tmp_path / "marked", lambda one: one)
    oracle.edit_config(marked, base_model_name_or_path="unsloth/mixtral", lora_B_layout="expert_fastest")
    told = merged(base, marked, tmp_path / "marked-out", allow=base_id)
    assert all(torch.equal(told[name], right[name]) for name in right)


def test_square_experts_without_a_version(tmp_path: Path) -> None:
    """PEFT before 0.20 took rows for columns; a square weight does not show it, another one does."""
    torch.manual_seed(0)
    base = oracle.save_base(seeded(tiny.ExpertBlocks).to(torch.bfloat16), tmp_path / "base")
    before = tensors_of(base)
    square, oblong = "layers.0.experts.down_proj", "layers.0.experts.gate_up_proj"
    for name in (square, oblong):
        count, rows, columns = before[name].shape
        for swapped in (False, True):
            factors = {
                f"{IN_FILE}layers.0.experts.lora_A.weight": torch.randn(2 * count, rows if swapped else columns),
                f"{IN_FILE}layers.0.experts.lora_B.weight": torch.randn(columns if swapped else rows, 2 * count),
            }
            place = tmp_path / f"{name} {swapped}"
            adapter = written(
                place, factors, target_parameters=[name.removeprefix("layers.0.")], peft_version=None, target_modules=[]
            )
            if name == square:
                assert refusal(base, adapter, tmp_path / "out", allow=PARTIAL) == "experts-layout-ambiguous"
                oracle.edit_config(adapter, peft_version="0.19.1")
                assert refusal(base, adapter, tmp_path / "out", allow=PARTIAL) == "experts-layout-ambiguous"
                oracle.edit_config(adapter, peft_version="0.20.0")
            up, down = pair(factors, "layers.0.experts")
            stack = torch.einsum("ore,eri->eoi", up.view(len(up), 2, count), down.view(count, 2, -1)) * 2
            stack = stack.mT if swapped and name == oblong else stack
            out = merged(base, adapter, place / "out", allow=PARTIAL)
            assert excess(out[name], before[name].double() + stack, before[name]) < 1


def test_some_layers_only(tmp_path: Path) -> None:
    base = oracle.save_base(seeded(tiny.llama), tmp_path / "base")
    before = tensors_of(base)
    for layers in (0, [1], [0, 1]):
        config = LoraConfig(**LM, target_modules=["q_proj"], layers_to_transform=layers)
        adapter = oracle.train(seeded(tiny.llama), config, tmp_path / f"{layers}")
        out = merged(base, adapter, tmp_path / f"{layers}" / "out")
        wanted = {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in ([layers] if layers == 0 else layers)}
        assert {name for name in out if not torch.equal(out[name], before[name])} == wanted


def without(starts: list[str], tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(starts))}


def test_lost_parts(tmp_path: Path) -> None:
    """Missing pairs, halves of pairs, and whole layers are refused unless somebody says so; what belongs nowhere always is."""
    base = oracle.save_base(seeded(tiny.llama), tmp_path / "base")
    config = LoraConfig(**LM, target_modules=["q_proj", "v_proj"])
    whole = oracle.train(seeded(tiny.llama), config, tmp_path / "whole")
    first, last = (f"{IN_FILE}model.layers.{layer}.self_attn" for layer in (0, 1))
    lost = {
        "pair": [f"{first}.q_proj."],
        "layer": [f"{last}."],
        "target": [f"{first}.v_proj.", f"{last}.v_proj."],
        "half": [f"{first}.q_proj.lora_B"],
    }
    found = {}
    complete = merged(base, whole, tmp_path / "complete")
    before = tensors_of(base)
    for name, starts in lost.items():
        rest = oracle.altered(whole, tmp_path / name, partial(without, starts))
        found[name] = refusal(base, rest, tmp_path / "out")
        out = merged(base, rest, tmp_path / name / "out", allow=PARTIAL)
        for key in out:
            module = f"{IN_FILE}{key.removesuffix('weight')}"
            gone = any(module.startswith(start) or start.startswith(module) for start in starts)
            assert torch.equal(out[key], before[key] if gone else complete[key]), (name, key)
    added = {
        "another layer": {f"{IN_FILE}model.layers.7.self_attn.q_proj.lora_{s}.weight": torch.ones(2, 2) for s in "AB"},
        "another module": {f"{IN_FILE}model.layers.0.self_attn.z_proj.lora_{s}.weight": torch.ones(2, 2) for s in "AB"},
        "no module": {f"{IN_FILE}model.layers.0.router.weight": torch.ones(2, 2)},
        "no prefix": {"model.layers.0.self_attn.k_proj.lora_A.weight": torch.ones(2, 16)},
        "twice": {f"{first}.q_proj.lora_A.default.weight": torch.ones(2, 16)},
    }
    for name, extra in added.items():
        more = oracle.altered(whole, tmp_path / name, lambda one: {**one, **extra})  # noqa: B023
        found[name] = refusal(base, more, tmp_path / "out")
        assert refusal(base, more, tmp_path / "out", allow=PARTIAL) in found[name]
    assert found == {
        "pair": "layer-without-tensors",
        "layer": "layer-without-tensors",
        "target": "absent-target",
        "half": "damaged: layer-without-tensors+orphan-factor",
        "another layer": "unmatched-target",
        "another module": "target-not-chosen+unmatched-target",
        "no module": "unmatched-target",
        "no prefix": "damaged: missing-prefix+orphan-factor",
        "twice": "damaged: adapter-name-in-key+unknown-tensor",
    }
