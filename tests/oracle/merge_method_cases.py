"""Methods other than LoRA in the forms that a merge has to tell apart, over every layer that PEFT has them for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from tests.oracle import merge_oracle as oracle
from tests.oracle import tiny_models as tiny
from tests.oracle.lora_cases import Case
from tests.oracle.merge_oracle import Tensors
from tests.oracle.method_cases import METHODS, method
from tests.oracle.tiny_models import seeded


class Kernels(tiny.Layers):
    """Convolutions whose sizes tell inputs from outputs and those that do not, and a layer that no block size divides."""

    def __init__(self) -> None:
        super().__init__()
        self.point1 = nn.Conv1d(4, 8, 1)
        self.point2 = nn.Conv2d(4, 8, 1)
        self.square = nn.Conv2d(8, 8, 3)
        self.long1 = nn.Conv1d(24, 36, 3)
        self.odd = nn.Linear(10, 6, bias=False)


_LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
_PAIR = ["lin0", "lin1"]
_CONVS = ["c1", "c2", "grouped", "point1", "point2"]
_GPT2 = ["c_attn", "c_proj", "c_fc"]
_OFT: dict[str, Any] = {"oft_block_size": 4}
_ADALORA: dict[str, Any] = {"init_r": 4, "total_step": 10}
_FORMS = ("ADALORA", "BOFT", "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "TRAINABLE_TOKENS")


def _known(case: Case) -> bool:
    return case.name.partition("-")[0] in _FORMS and case.name not in ("MISS-bat", "OFT-r")


def _tokens(target_modules: object, **options: Any) -> peft.TrainableTokensConfig:
    return peft.TrainableTokensConfig(**options)


CASES = (
    *filter(_known, METHODS),
    method("ADALORA-conv1d", peft.AdaLoraConfig, tiny.gpt2, target_modules=_GPT2, **_ADALORA, **_LM),
    method("ADALORA-convolution", peft.AdaLoraConfig, Kernels, target_modules=["c2", "point2"], **_ADALORA),
    method(
        "ADALORA-emptied",
        peft.AdaLoraConfig,
        rank_pattern={"lin0.lora_E": [True, False, True, False], "lin1.lora_E": [False] * 4},
        **_ADALORA,
    ),
    method("BEFT-biases", peft.BeftConfig),
    method("BOFT-convolution", peft.BOFTConfig, Kernels, boft_block_size=2, target_modules=["lin0", "square", "point2"]),
    method("HIRA-conv1d", peft.HiraConfig, tiny.gpt2, r=2, target_modules=_GPT2, **_LM),
    method("HIRA-convolution", peft.HiraConfig, Kernels, r=2, target_modules=["c1", "c2", "c3", "point1", "point2"]),
    method("HIRA-tied", peft.HiraConfig, tiny.tied_llama, r=2, target_modules=["embed_tokens", "k_proj"], **_LM),
    method("HRA-odd", peft.HRAConfig, Kernels, r=3, target_modules=["lin0", "odd", "point2"]),
    method("HRA-orthogonal", peft.HRAConfig, r=4, apply_GS=True, target_modules=[*_PAIR, "c2"]),
    method("IA3-conv1d", peft.IA3Config, tiny.gpt2, target_modules=_GPT2, feedforward_modules=["c_proj"], **_LM),
    method(
        "IA3-convolution",
        peft.IA3Config,
        Kernels,
        target_modules=["grouped", "square", "c2", "c3", "odd"],
        feedforward_modules=["c3", "odd"],
    ),
    method(
        "IA3-convolution-feedforward",
        peft.IA3Config,
        Kernels,
        target_modules=["grouped", "square", "c2"],
        feedforward_modules=["grouped", "square", "c2"],
    ),
    method("IA3-expression", peft.IA3Config, target_modules=_PAIR, feedforward_modules=".*1"),
    method(
        "IA3-head",
        peft.IA3Config,
        tiny.llama,
        target_modules=["k_proj", "down_proj", "lm_head"],
        feedforward_modules=["down_proj"],
        **_LM,
    ),
    method(
        "IA3-classifier",
        peft.IA3Config,
        tiny.classifier,
        target_modules=["k_proj"],
        feedforward_modules=[],
        task_type="SEQ_CLS",
    ),
    method("LN_TUNING-llama", peft.LNTuningConfig, tiny.llama, target_modules=["input_layernorm", "norm"], **_LM),
    method("LOHA-convolution", peft.LoHaConfig, Kernels, r=2, alpha=3, target_modules=_CONVS),
    method("LOHA-kernel", peft.LoHaConfig, Kernels, r=2, target_modules=_CONVS, use_effective_conv2d=True),
    method(
        "LOHA-saved", peft.LoHaConfig, tiny.llama, r=2, target_modules=["k_proj", "lm_head"], modules_to_save=["norm"],
        **_LM,
    ),
    method("LOKR-convolution", peft.LoKrConfig, Kernels, r=1, alpha=3, target_modules=_CONVS),
    method("LOKR-convolution-whole", peft.LoKrConfig, Kernels, r=8, alpha=3, target_modules=_CONVS),
    method("LOKR-convolution-both", peft.LoKrConfig, Kernels, r=1, decompose_both=True, decompose_factor=4,
           target_modules=[*_CONVS, "odd"]),
    method("LOKR-kernel", peft.LoKrConfig, Kernels, r=1, target_modules=["c2", "grouped", "point1"],
           use_effective_conv2d=True),
    method("LOKR-kernel1", peft.LoKrConfig, Kernels, r=2, target_modules=["long1"], use_effective_conv2d=True),
    method("LOKR-one-factor", peft.LoKrConfig, Kernels, r=2, decompose_factor=1, target_modules=["lin0", "odd"]),
    method("MISS-remainder", peft.MissConfig, Kernels, r=4, target_modules=["lin0", "odd"]),
    method("OFT-cayley", peft.OFTConfig, use_cayley_neumann=False, **_OFT),
    *(method(f"OFT-terms-{terms}", peft.OFTConfig, num_cayley_neumann_terms=terms, **_OFT) for terms in (2, 3, 4, 8)),
    method("OFT-constrained", peft.OFTConfig, coft=True, eps=0.1, **_OFT),
    method("OFT-constrained-shared", peft.OFTConfig, coft=True, eps=0.1, block_share=True, use_cayley_neumann=False,
           **_OFT),
    method("OFT-not-constrained", peft.OFTConfig, coft=True, eps=100.0, **_OFT),
    method("OFT-point", peft.OFTConfig, Kernels, target_modules=["point2", "lin0"], bias="all", **_OFT),
    method("OFT-llama", peft.OFTConfig, tiny.llama, target_modules=["embed_tokens", "k_proj"], **_OFT, **_LM),
    method("TRAINABLE_TOKENS-tied", _tokens, tiny.tied_llama, token_indices=[1, 5], **_LM),
)  # fmt: skip


def made(place: Path, name: str, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """Base and adapter of a case."""
    case = _case(name)
    model = seeded(case.model).to(dtype)
    base = oracle.save_base(model, place / "base")
    return base, oracle.train(model, case.config(), place / "adapter", **case.save)


def sum_of(name: str, adapter: Path, into: Path) -> Tensors:
    """The weights after PEFT's merge in float64."""
    return oracle.by_peft(seeded(_case(name).model).double(), adapter, into)


def _case(name: str) -> Case:
    return next(case for case in (*CASES, *METHODS) if case.name == name)
