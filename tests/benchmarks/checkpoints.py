"""Checkpoints of real shapes with random numbers in them, and adapters of all their linear layers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

SHARDS, RANK, ALPHA = 5, 16, 32
Tensors = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """A Llama."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    keys: int
    vocabulary: int = 32_000

    @property
    def modules(self) -> dict[str, tuple[int, int]]:
        """Linear layers of a block: (in, out)."""
        keys = self.hidden // self.heads * self.keys
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.hidden, keys),
            "self_attn.v_proj": (self.hidden, keys),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }

    @cached_property
    def tensors(self) -> Tensors:
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            for module, (wide, high) in self.modules.items():
                found[f"model.layers.{layer}.{module}.weight"] = (high, wide)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found[f"model.layers.{layer}.{norm}.weight"] = (self.hidden,)
        return {**found, "model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocabulary, self.hidden)}

    @property
    def bytes(self) -> int:
        return 2 * sum(map(prod, self.tensors.values()))

    @property
    def largest(self) -> int:
        return 2 * max(map(prod, self.tensors.values()))

    def with_layers(self, layers: int) -> Shape:
        return replace(self, layers=layers)


LLAMA_1B = Shape("1.1B", hidden=2048, intermediate=5632, layers=22, heads=32, keys=4)
LLAMA_3B = Shape("3B", hidden=3072, intermediate=8192, layers=28, heads=24, keys=8)
#: Its two largest tensors are a third of the 3B model each.
LARGE_VOCABULARY = Shape("vocabulary 256k", 3072, 8192, layers=4, heads=24, keys=8, vocabulary=256_000)
LLAMA_7B = Shape("7B", hidden=4096, intermediate=11008, layers=32, heads=32, keys=32)


def write_base(directory: Path, shape: Shape) -> Path:
    """In bf16 as ``save_pretrained`` writes it, in five shards; numbers of mean 0 and deviation 0.02."""
    directory.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.keys,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "README.md").write_text("A base with random numbers in it.\n")
    random = _Numbers(seed=0)
    places: dict[str, str] = {}
    for number, mine in enumerate(_shards(shape)):
        name = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        places |= dict.fromkeys(mine, name)
        with open(directory / name, "wb") as file:
            file.write(_header(mine, "BF16", 2))
            for each in mine.values():
                random.write(file, prod(each))
    index = {"metadata": {"total_size": shape.bytes}, "weight_map": dict(sorted(places.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return directory


def write_adapter(directory: Path, shape: Shape, *, embeddings: bool = False, seed: int = 1) -> Path:
    """LoRA as PEFT writes it: every linear layer of the blocks, r = 16 in F32, and the input embeddings if asked for. A as PEFT
    initialises it, B as large as training makes it."""
    directory.mkdir(parents=True)
    tensors: dict[str, tuple[int, ...]] = {}
    for layer in range(shape.layers):
        for module, (wide, high) in shape.modules.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors |= {f"{name}.lora_A.weight": (RANK, wide), f"{name}.lora_B.weight": (high, RANK)}
    if embeddings:
        name = "base_model.model.model.embed_tokens"
        tensors |= {
            f"{name}.lora_embedding_A": (RANK, shape.vocabulary),
            f"{name}.lora_embedding_B": (shape.hidden, RANK),
        }
    tensors = dict(sorted(tensors.items()))
    random = np.random.default_rng(seed)
    with open(directory / "adapter_model.safetensors", "wb") as file:
        file.write(_header(tensors, "F32", 4))
        for name, each in tensors.items():
            values = random.standard_normal(each, dtype=np.float32)
            values *= 0.01 if "_A" in name.rpartition("lora")[2] else 0.005
            file.write(values.data)
    targets = [module.rpartition(".")[2] for module in shape.modules] + ["embed_tokens"] * embeddings
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": f"benchmark/llama-{shape.name.replace(' ', '-')}",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(targets),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    return directory


class _Numbers:
    """A pool of normal numbers in bf16, read from another place each time: a billion fresh ones take ten seconds."""

    def __init__(self, *, seed: int, count: int = 1 << 25) -> None:
        self._random = np.random.default_rng(seed)
        values = self._random.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        self._pool = (values.view(np.uint32) >> 16).astype(np.uint16)

    def write(self, file: BinaryIO, count: int) -> None:
        while count:
            start = int(self._random.integers(len(self._pool) // 2))
            piece = self._pool[start : start + min(count, len(self._pool) // 2)]
            file.write(piece.data)
            count -= len(piece)


def _shards(shape: Shape) -> Iterator[Tensors]:
    """As many bytes in each, in the model's order; within a file by name."""
    mine: dict[str, tuple[int, ...]] = {}
    position, number = 0, 0
    for name, each in shape.tensors.items():
        middle = position + prod(each)
        position += 2 * prod(each)
        if mine and middle * SHARDS // shape.bytes > number:
            yield dict(sorted(mine.items()))
            mine, number = {}, number + 1
        mine[name] = each
    yield dict(sorted(mine.items()))


def _header(tensors: Tensors, dtype: str, width: int) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors.items():
        end = position + width * prod(shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
