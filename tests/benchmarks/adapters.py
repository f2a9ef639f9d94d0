"""Adapters of real shapes with random numbers in them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

#: A Llama of 1.1 billion parameters: module → (in, out).
BASE = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
HIDDEN, INTERMEDIATE, KEYS, LAYERS = 2048, 5632, 256, 22
LLAMA_1B = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, KEYS),
    "self_attn.v_proj": (HIDDEN, KEYS),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
_CARD = f"""---
base_model: {BASE}
library_name: peft
pipeline_tag: text-generation
tags:
- base_model:adapter:{BASE}
- lora
---
# Model Card
"""
TINY = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (64, 64)}


def write_lora(
    directory: Path,
    *,
    modules: dict[str, tuple[int, int]] = LLAMA_1B,
    layers: int = LAYERS,
    rank: int = 16,
    dtype: str = "F32",
    alpha: int = 32,
    seed: int = 0,
) -> Path:
    """A directory as PEFT's ``save_pretrained`` writes it."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    pieces, position = [], 0
    for layer in range(layers):
        for module, (wide, high) in modules.items():
            for side, shape in (("A", (rank, wide)), ("B", (high, rank))):
                numbers = random.standard_normal(shape, dtype=np.float32)
                data = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes() if dtype == "BF16" else numbers.tobytes()
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                end = position + len(data)
                header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
                pieces.append(data)
                position = end
    text = json.dumps(header).encode()
    (directory / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(pieces))
    write_config(directory, modules=modules, rank=rank, alpha=alpha)
    (directory / "README.md").write_text(_CARD)
    return directory


def write_config(directory: Path, *, modules: dict[str, tuple[int, int]] = LLAMA_1B, rank: int, alpha: int) -> None:
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(module.rpartition(".")[2] for module in modules),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
