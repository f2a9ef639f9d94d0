"""What is not merged of the methods other than LoRA, each by the name of its reason, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn

from registry.plans.merge_methods import PLANNERS
from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.merge_method_cases import Kernels, made
from tests.oracle.merge_oracle import Tensors
from tests.oracle.method_cases import METHODS
from tests.oracle.tiny_models import seeded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks the Hub about the base model's vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("BOFT", "weight-on-boft"),
        ("HRA", "weight-on-hra"),
        ("IA3", "weight-on-ia3"),
        ("LN_TUNING", "weight-on-replacement"),
        ("OFT", "weight-on-oft"),
        ("TRAINABLE_TOKENS", "weight-on-replacement"),
    ],
)
def test_there_is_no_share_of_what_is_no_delta(name: str, rule: str, tmp_path: Path) -> None:
    base, adapter = made(tmp_path, name)
    assert oracle.refusal(base, [(adapter, 0.5)], tmp_path / "out") == rule


def test_a_turned_weight_stands_alone(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, "OFT")
    other = oracle.train(seeded(tiny.Layers), peft.LoHaConfig(r=2, target_modules=["lin0"]), tmp_path / "other")
    assert oracle.refusal(base, [adapter, other], tmp_path / "out") == "stacked"


def test_no_weight_is_what_oft_makes_of_a_convolution(tmp_path: Path) -> None:
    """PEFT adds up what patches share when it lays them together again, so that the layer is another one from the start."""
    layer: Any = seeded(Kernels)
    pictures = torch.randn(2, 4, 6, 6)
    plain = layer.c2(pictures), layer.point2(pictures)
    config = peft.OFTConfig(oft_block_size=4, target_modules=["c2", "point2"])
    wrapped: Any = get_peft_model(layer, config).base_model.model
    assert (wrapped.c2(pictures) - plain[0]).abs().max() > 1
    assert torch.equal(wrapped.point2(pictures), plain[1])
    base, adapter = made(tmp_path, "OFT-r")
    assert oracle.refusal(base, adapter, tmp_path / "out") == "oft-convolution"


def of(name: str, edit: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    """An edit of the tensors whose names end so."""

    def edited(tensors: Tensors) -> Tensors:
        assert any(one.endswith(name) for one in tensors)
        return {one: edit(tensor).contiguous() if one.endswith(name) else tensor for one, tensor in tensors.items()}

    return edited


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): one for name, one in tensors.items()}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: one for name, one in tensors.items() if part not in name}


def wider(one: Tensor) -> Tensor:
    return torch.cat([one, one[..., -1:]], dim=-1)


def taller(one: Tensor) -> Tensor:
    return torch.cat([one, one[-1:]])


def flat(one: Tensor) -> Tensor:
    return one.reshape(-1)


MISSHAPEN = (
    *(("ADALORA", "lin0.lora_E", edit) for edit in (wider, flat)),
    ("ADALORA-convolution", "c2.lora_A", wider),
    *(("BEFT-biases", "lin0.beft_bias", edit) for edit in (wider, taller, flat)),
    *(("BOFT", "lin0.boft_R", edit) for edit in (wider, flat)),
    *(("BOFT", "lin0.boft_s", edit) for edit in (wider, taller, flat)),
    *(("HIRA", "lin0.hira_B", edit) for edit in (wider, taller, flat)),
    *(("HIRA", "emb.hira_embedding_A", edit) for edit in (wider, taller, flat)),
    ("HRA", "lin0.hra_u", taller),
    *(("IA3", "lin1.ia3_l", edit) for edit in (wider, taller, flat)),
    ("LN_TUNING", "norm.ln_tuning_layers.weight", wider),
    *(("LOHA", "c2.hada_w1_a", edit) for edit in (wider, taller, flat)),
    *(("LOHA", "c2.hada_t1", edit) for edit in (wider, taller, flat)),
    *(("LOHA", "lin0.hada_w2_a", edit) for edit in (wider, taller, flat)),
    *(("LOKR", "lin0.lokr_w1", edit) for edit in (wider, taller, flat)),
    *(("LOKR-convolution", "c2.lokr_w2_a", edit) for edit in (wider, taller, flat)),
    *(("LOKR-kernel1", "long1.lokr_t2", edit) for edit in (wider, taller, flat)),
    *(("LOKR-convolution-whole", "c1.lokr_w2", edit) for edit in (wider, taller, flat)),
    *(("MISS", "lin0.miss_block", edit) for edit in (wider, flat)),
    *(("OFT", "lin0.oft_R.weight", edit) for edit in (wider, taller, flat)),
    *(("OFT-shared", "lin0.oft_R.weight", edit) for edit in (wider, taller, flat)),
)


@pytest.mark.parametrize(("name", "tensor", "edit"), MISSHAPEN)
def test_a_factor_of_another_shape_is_refused(
    name: str, tensor: str, edit: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    base, adapter = made(tmp_path, name)
    odd = oracle.altered(adapter, tmp_path / "odd", of(tensor, edit))
    assert oracle.refusal(base, odd, tmp_path / "out") == "wrong-shape"


EDITED: tuple[tuple[str, Callable[[Tensors], Tensors] | None, dict[str, Any], str], ...] = (
    ("ADALORA-pruned", None, {"init_r": 5}, "rank-mismatch"),
    ("ADALORA-pruned", None, {"rank_pattern": None}, "rank-mismatch"),
    ("BEFT", None, {}, "bias-without-base"),
    ("BOFT", of("boft_R", lambda one: torch.cat([one, one])), {}, "boft-butterfly"),
    ("IA3-convolution", None, {"feedforward_modules": ".*(c3|odd)"}, "feedforward-unknown"),
    ("LOHA", without("c2.hada_w"), {}, "orphan-factor+scaling-unknown"),
    ("LOKR", without("c2.lokr_w2"), {}, "wrong-shape"),
    ("MISS-bat", None, {}, "miss-bat"),
    ("MISS-mini", None, {"mini_r": 5}, "wrong-shape"),
    ("OFT", renamed("oft_R.weight", "oft_r"), {}, "oft-too-old"),
    ("OFT", None, {"peft_version": None}, "oft-series-changed"),
    ("OFT", None, {"peft_version": "0.17.1"}, "oft-series-changed"),
    ("OFT-constrained", None, {"block_share": True}, "wrong-shape"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "config", "rule"), EDITED, ids=[f"{one[0]} {one[3]}" for one in EDITED])
def test_refused_by_name(
    name: str, edit: Callable[[Tensors], Tensors] | None, config: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    base, adapter = made(tmp_path, name)
    odd = oracle.altered(adapter, tmp_path / "odd", edit or dict)
    oracle.edit_config(odd, **config)
    assert oracle.refusal(base, odd, tmp_path / "out") == rule


def test_a_layer_that_the_method_has_no_form_for(tmp_path: Path) -> None:
    """Factors with the sizes of a Conv1D, which PEFT has no LoHa for."""
    model: Any = seeded(tiny.gpt2)
    base = oracle.save_base(model, tmp_path / "base")
    linear = nn.ModuleDict({"c_proj": nn.Linear(16, 16)})
    adapter = oracle.train(linear, peft.LoHaConfig(r=2, target_modules=["c_proj"]), tmp_path / "adapter")
    path = "base_model.model.transformer.h.0.attn.c_proj"
    odd = oracle.altered(adapter, tmp_path / "odd", renamed("base_model.model.c_proj", path))
    assert oracle.refusal(base, odd, tmp_path / "out") == "wrong-layer"


def test_every_other_method_is_refused_by_name(tmp_path: Path) -> None:
    left = [case for case in METHODS if case.name.partition("-")[0] not in PLANNERS and case.model is tiny.Layers]
    for case in left:
        place = tmp_path / case.name
        base = oracle.save_base(seeded(case.model), place / "base")
        adapter = oracle.train(seeded(case.model), case.config(), place / "adapter", **case.save)
        assert oracle.refusal(base, adapter, place / "out") == "not-mergeable", case.name
    assert len(left) > 20
