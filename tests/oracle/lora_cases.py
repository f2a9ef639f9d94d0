"""LoRA in all the forms that PEFT 0.21.2 saves over the tiny models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from torch import nn

from tests.oracle import tiny_models as tiny


@dataclass(frozen=True)
class Case:
    """``config`` is called in the test: some configs warn when they are made."""

    name: str
    model: Callable[[], nn.Module]
    config: Callable[[], Any]
    save: dict[str, Any] = field(default_factory=dict)


def lora(name: str, model: Callable[[], nn.Module], save: dict[str, Any] | None = None, **options: Any) -> Case:
    return Case(name, model, lambda: LoraConfig(**{"r": 2, **options}), save or {})


_LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
_PAIR = ["lin0", "lin1"]
#: Sorted, since PEFT sorts ranks when it saves and then cannot load what it saved by another order.
_OVERLAPPING = {"k_proj": 5, "layers.10.out": 9, r"layers\.1\..*": 3, r"layers\.\d\.q_proj": 7}

LORA = (
    lora("linear", tiny.Layers, target_modules=_PAIR),
    lora("alpha", tiny.Layers, target_modules=_PAIR, lora_alpha=32),
    lora("rank-stabilised", tiny.Layers, target_modules=_PAIR, lora_alpha=32, use_rslora=True),
    lora(
        "rank-stabilised-patterns",
        tiny.Blocks,
        target_modules=["q_proj", "k_proj"],
        use_rslora=True,
        rank_pattern={"q_proj": 5},
        alpha_pattern={r"layers\.1\d\..*": 24},
    ),
    lora("conv1d-module", tiny.gpt2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, **_LM),
    lora("embedding-gpt2", tiny.gpt2, target_modules=["c_attn", "wte", "lm_head"], **_LM),
    lora("embedding", tiny.Layers, target_modules=["emb", "lin0"]),
    lora("convolutions", tiny.Layers, target_modules=["c1", "c2", "c3", "grouped"]),
    lora("attention", tiny.Layers, target_modules=["attn"], rank_pattern={"attn": 3}, alpha_pattern={"out_proj": 99}),
    lora("dora", tiny.Layers, target_modules=[*_PAIR, "emb", "c1", "c2", "c3"], use_dora=True),
    lora("dora-conv1d-module", tiny.gpt2, target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True, **_LM),
    lora("lora-bias", tiny.Layers, target_modules=_PAIR, lora_bias=True),
    lora("bias-all", tiny.Layers, target_modules=_PAIR, bias="all"),
    lora("bias-lora-only", tiny.Layers, target_modules=_PAIR, bias="lora_only"),
    lora("one-regular-expression", tiny.Blocks, target_modules=r"layers\.(1|1[01])\.(q|k)_proj"),
    lora("look-ahead", tiny.Blocks, target_modules=r"layers\.\d+\.(?!out)\w+"),
    lora("all-linear", tiny.llama, target_modules="all-linear", **_LM),
    lora("full-names", tiny.Blocks, target_modules=[f"layers.{i}.q_proj" for i in range(12)]),
    lora("layers-to-transform", tiny.llama, target_modules=["q_proj"], layers_to_transform=[1], **_LM),
    lora("excluded", tiny.Blocks, target_modules=["q_proj"], exclude_modules=r".*\.1\..*"),
    lora(
        "overlapping-patterns",
        tiny.Blocks,
        target_modules=["q_proj", "k_proj", "out"],
        rank_pattern=_OVERLAPPING,
        alpha_pattern={key: value * 3 for key, value in reversed(_OVERLAPPING.items())},
    ),
    lora(
        "look-ahead-in-patterns",
        tiny.Blocks,
        target_modules=["q_proj", "k_proj"],
        rank_pattern={r"layers\.(?!1\.)\d+\.q_proj": 3, r"(?<!1\.)k_proj": 4},
        alpha_pattern={r"(q|k)_proj(?<=k_proj)": 40},
    ),
    lora(
        "full-names-in-patterns",
        tiny.Blocks,
        target_modules=["q_proj"],
        rank_pattern={f"layers.{i}.q_proj": i + 1 for i in range(12)},
        alpha_pattern={f"layers.{i}.q_proj": 2 * i + 1 for i in range(0, 12, 2)},
    ),
    lora("modules-to-save", tiny.llama, target_modules=["q_proj"], modules_to_save=["lm_head", "mlp"], **_LM),
    lora("classifier", tiny.classifier, target_modules=["q_proj"], task_type="SEQ_CLS"),
    lora("saved-embeddings", tiny.llama, {"save_embedding_layers": True}, target_modules=["q_proj"], **_LM),
    lora("targeted-embeddings", tiny.llama, target_modules=["embed_tokens", "lm_head", "q_proj"], **_LM),
    lora("trainable-tokens", tiny.llama, target_modules=["q_proj"], trainable_token_indices=[1, 2], **_LM),
    lora(
        "trainable-tokens-of-both",
        tiny.llama,
        target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [1], "lm_head": [2]},
        **_LM,
    ),
    lora(
        "trainable-tokens-saved-embeddings",
        tiny.llama,
        {"save_embedding_layers": True},
        target_modules=["q_proj"],
        trainable_token_indices=[1, 2],
        **_LM,
    ),
    lora("tied", tiny.tied_llama, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True, **_LM),
    lora("one-parameter", tiny.ExpertBlocks, target_modules=["q_proj"], target_parameters=["experts.down_proj"]),
    lora("bare-parameter", tiny.ExpertBlocks, target_modules=["q_proj"], target_parameters=["gate_up_proj"]),
    lora(
        "two-parameters",
        tiny.ExpertBlocks,
        target_modules=[],
        target_parameters=["experts.down_proj", "experts.gate_up_proj"],
        rank_pattern={"down_proj": 3, r"layers\.1\..*gate_up_proj": 5},
        alpha_pattern={"experts.gate_up_proj": 32},
        use_rslora=True,
    ),
    lora("parameter-of-a-linear", tiny.Layers, target_parameters=["lin0.weight"]),
    lora(
        "mixtral",
        tiny.mixtral,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        **_LM,
    ),
    lora("kasa", tiny.Layers, target_modules=_PAIR, kasa_config=KasaConfig()),
    lora(
        "block-diagonal",
        tiny.Layers,
        r=4,
        target_modules=_PAIR,
        use_bdlora=BdLoraConfig(target_modules_bd_a=["lin0"], target_modules_bd_b=["lin1"], nblocks=2),
    ),
    lora("monteclora", tiny.Layers, target_modules=_PAIR, monteclora_config=MontecloraConfig()),
    lora("velora", tiny.Layers, target_modules=_PAIR, velora_config=VeloraConfig(num_groups=2)),
    lora("alora", tiny.llama, target_modules=["q_proj"], alora_invocation_tokens=[1, 2], **_LM),
    lora("qalora", tiny.Layers, target_modules=_PAIR, use_qalora=True, qalora_group_size=4),
    lora("layer-replication", tiny.llama, target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]], **_LM),
    *(
        lora(f"init-{start}", tiny.Layers, target_modules=_PAIR, init_lora_weights=start)
        for start in ("gaussian", "pissa", "pissa_niter_4", "olora", "mica", "orthogonal", False)
    ),
)
