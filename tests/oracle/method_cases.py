"""Every other peft_type that PEFT 0.21.2 saves over a tiny model here; ADAMSS would need scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
from torch import nn

from tests.oracle import tiny_models as tiny
from tests.oracle.lora_cases import Case

_LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
_PAIR = ["lin0", "lin1"]
_BLOCKS: dict[str, Any] = {"target_modules": ["q_proj", "k_proj"]}


def method(name: str, config: Callable[..., Any], model: Callable[[], nn.Module] = tiny.Layers, **options: Any) -> Case:
    return Case(name, model, lambda: config(**{"target_modules": _PAIR, **options}))


def prompt(name: str, config: Callable[..., Any], **options: Any) -> Case:
    return Case(name, tiny.llama, lambda: config(**_LM, **options))


METHODS = (
    method("ADALORA", peft.AdaLoraConfig, init_r=4, target_r=2, lora_alpha=32, total_step=10),
    method("ADALORA-no-alpha", peft.AdaLoraConfig, init_r=4, target_r=2, lora_alpha=0, total_step=10),
    method(
        "ADALORA-pruned",
        peft.AdaLoraConfig,
        init_r=4,
        total_step=10,
        rank_pattern={"lin0.lora_E": [True, False, True, True], "lin1.lora_E": [True] * 4},
    ),
    Case("ADAPTION_PROMPT", tiny.llama, lambda: peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, **_LM)),
    method("BEFT", peft.BeftConfig, tiny.llama, target_modules=["v_proj"], **_LM),
    method("BOFT", peft.BOFTConfig, boft_block_size=4, target_modules=[*_PAIR, "c2"]),
    method("C3A", peft.C3AConfig, block_size=4),
    method("DEFT", peft.DeftConfig, r=3, target_modules=[*_PAIR, "head"]),
    method("DEFT-para", peft.DeftConfig, r=3, para=True),
    method("DELORA", peft.DeloraConfig, r=2, rank_pattern={"lin1": 3}),
    method("FOURIERFT", peft.FourierFTConfig, n_frequency=5),
    method("FROD", peft.FrodConfig, progressbar=False),
    method("GLORA", peft.GloraConfig, r=2),
    method("GLORA-vectors", peft.GloraConfig, r=2, config_A_B="vector", config_C="vector", config_D_E="vector"),
    method("GRALORA", peft.GraloraConfig, r=4, gralora_k=2, alpha=8),
    method("GRALORA-hybrid", peft.GraloraConfig, r=4, hybrid_r=2, gralora_k=2, alpha=8),
    method("HIRA", peft.HiraConfig, r=2, target_modules=[*_PAIR, "emb", "c2"], rank_pattern={"lin1": 3}),
    method("HRA", peft.HRAConfig, r=2, target_modules=[*_PAIR, "c2"]),
    method("IA3", peft.IA3Config, target_modules=[*_PAIR, "c2"], feedforward_modules=["lin1"]),
    method("LILY", peft.LilyConfig, tiny.Blocks, r=3, stride_A=2, num_B=2, **_BLOCKS),
    method("LN_TUNING", peft.LNTuningConfig, target_modules=["norm"]),
    method(
        "LOHA",
        peft.LoHaConfig,
        r=2,
        alpha=3,
        target_modules=[*_PAIR, "c1", "c2"],
        use_effective_conv2d=True,
        rank_pattern={"lin1": 3},
        alpha_pattern={"lin0": 7},
    ),
    method(
        "LOHA-patterns", peft.LoHaConfig, tiny.Blocks, r=2, rank_pattern={r"layers\.(?!1\.)\d+\.q_proj": 3}, **_BLOCKS
    ),
    method(
        "LOKR",
        peft.LoKrConfig,
        r=2,
        alpha=3,
        target_modules=[*_PAIR, "c2"],
        use_effective_conv2d=True,
        rank_pattern={"lin1": 1},
        alpha_pattern={"lin0": 7},
    ),
    method("LOKR-whole", peft.LoKrConfig, r=8, alpha=3, rank_pattern={"lin1": 9}),
    method("LOKR-decomposed", peft.LoKrConfig, r=1, alpha=3, decompose_both=True, decompose_factor=4),
    method("MISS", peft.MissConfig, r=4),
    method("MISS-bat", peft.MissConfig, r=4, init_weights="bat"),
    method("MISS-mini", peft.MissConfig, r=4, mini_r=2, init_weights="mini"),
    method("OFT", peft.OFTConfig, oft_block_size=4, bias="oft_only"),
    method("OFT-r", peft.OFTConfig, r=2, oft_block_size=0, target_modules=[*_PAIR, "c2"]),
    method("OFT-one-block", peft.OFTConfig, oft_block_size=16, target_modules=["lin0"]),
    method("OFT-embedding", peft.OFTConfig, oft_block_size=4, target_modules=["emb", "lin0"]),
    method("OFT-shared", peft.OFTConfig, r=2, oft_block_size=0, block_share=True),
    method("OSF", peft.OSFConfig, effective_rank=4),
    method("PEANUT", peft.PeanutConfig, r=4, depth=2, scaling=1.5),
    method("POLY", peft.PolyConfig, r=2),
    method("PSOFT", peft.PsoftConfig, r=4),
    method("PSOFT-not-orthogonal", peft.PsoftConfig, r=4, psoft_orth=False, psoft_alpha=6),
    method("PVERA", peft.PveraConfig, r=4),
    method("RANDLORA", peft.RandLoraConfig, r=2, randlora_alpha=8),
    method("RANDLORA-without-projection", peft.RandLoraConfig, r=2, save_projection=False),
    method("ROAD", peft.RoadConfig, group_size=4, variant="road_4"),
    method("SHADOW", peft.ShadowConfig, tiny.llama, target_modules=r".*\.layers\.\d+$", **_LM),
    method("SHIRA", peft.ShiraConfig, r=2),
    method("SUPERTUNING", peft.SupertuningConfig, sparsity=0.9),
    method("SUPERTUNING-supra", peft.SupertuningConfig, sparsity=0.9, r=3),
    method("TINYLORA", peft.TinyLoraConfig, r=4, target_modules=[*_PAIR, "head"]),
    method("TINYLORA-without-projection", peft.TinyLoraConfig, r=4, save_projection=False),
    Case("TRAINABLE_TOKENS", tiny.llama, lambda: peft.TrainableTokensConfig(token_indices=[1, 2, 3], **_LM)),
    method("UNILORA", peft.UniLoraConfig, r=2),
    method("VBLORA", peft.VBLoRAConfig, r=2, num_vectors=8, vector_length=4),
    method("VBLORA-topk", peft.VBLoRAConfig, r=2, num_vectors=8, vector_length=4, save_only_topk_weights=True),
    method("VERA", peft.VeraConfig, r=4),
    method("VERA-without-projection", peft.VeraConfig, r=4, save_projection=False, target_modules=["lin0"]),
    method("WAVEFT", peft.WaveFTConfig, n_frequency=5),
)

PROMPTS = (
    prompt("CARTRIDGE", peft.CartridgeConfig, num_virtual_tokens=3),
    prompt("CPT", peft.CPTConfig, cpt_token_ids=[1, 2], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 1]),
    prompt("MULTITASK_PROMPT_TUNING", peft.MultitaskPromptTuningConfig, num_virtual_tokens=3, num_tasks=2),
    prompt("PREFIX_TUNING", peft.PrefixTuningConfig, num_virtual_tokens=3, prefix_projection=True),
    prompt("PROMPT_TUNING", peft.PromptTuningConfig, num_virtual_tokens=3),
    Case(
        "PROMPT_TUNING-classifier",
        tiny.classifier,
        lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
    ),
    prompt("P_TUNING", peft.PromptEncoderConfig, num_virtual_tokens=3, encoder_hidden_size=8),
)
