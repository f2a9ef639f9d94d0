"""Models with every kind of layer that PEFT adapts, small enough to make hundreds of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
)


class _Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Layers(_Model):
    """Linear, embedding, convolutions, attention, norm."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(16, 32)
        self.lin1 = nn.Linear(32, 16)
        self.emb = nn.Embedding(10, 16)
        self.c1 = nn.Conv1d(4, 8, 3)
        self.c2 = nn.Conv2d(4, 8, 3)
        self.c3 = nn.Conv3d(4, 8, 2)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.attn = nn.MultiheadAttention(16, 2)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)


class Block(_Model):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(16, 16)
        self.k_proj = nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)


class Blocks(_Model):
    """Twelve blocks, so that layer 1 and layers 10 and 11 can be confused."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(12)])


class Experts(_Model):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(4, 16, 8))
        self.down_proj = nn.Parameter(torch.randn(4, 8, 8))


class ExpertBlock(_Model):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(8, 8)
        self.experts = Experts()


class ExpertBlocks(_Model):
    """Two blocks with four fused experts each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ExpertBlock(), ExpertBlock()])


_LLAMA: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_LLAMA))


def llama_without_cache() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_LLAMA, use_cache=False))


def tied_llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_LLAMA, tie_word_embeddings=True))


def classifier() -> nn.Module:
    make: Callable[[LlamaConfig], nn.Module] = LlamaForSequenceClassification
    return make(LlamaConfig(**{**_LLAMA, "num_labels": 3, "pad_token_id": 0}))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(MixtralConfig(**_LLAMA, num_local_experts=4))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()
