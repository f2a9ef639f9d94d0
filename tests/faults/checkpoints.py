"""A small sharded base and an adapter that changes tensors in each of its files; and what a directory holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from random import Random
from typing import Any

from tests.conftest import Tensors, safetensors_bytes

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
SHARDS = tuple(f"model-{number:05}-of-00004.safetensors" for number in range(1, 5))
WIDTH, INNER, WORDS, LAYERS = 16, 24, 32, 3

_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
#: What belongs to a model besides weights, and is carried over.
EXTRAS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_LAYER = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
    "input_layernorm": (WIDTH,),
    "post_attention_layernorm": (WIDTH,),
}
TARGETS = ("q_proj", "down_proj", "lm_head")
RANK = 2


def write_base(into: Path, *, single: bool = False) -> Path:
    """A Llama of three layers in four files, or in one."""
    into.mkdir(parents=True)
    files: dict[str, dict[str, tuple[str, tuple[int, ...], bytes]]] = {name: {} for name in SHARDS}
    random = Random(7)

    def put(file: int, name: str, shape: tuple[int, ...]) -> None:
        files[SHARDS[file]][name] = ("BF16", shape, b"".join(number[2:] for number in _numbers(random, shape)))

    put(0, "model.embed_tokens.weight", (WORDS, WIDTH))
    for layer in range(LAYERS):
        for module, shape in _LAYER.items():
            put(layer, f"model.layers.{layer}.{module}.weight", shape)
    put(3, "model.norm.weight", (WIDTH,))
    put(3, "lm_head.weight", (WORDS, WIDTH))
    if single:
        files = {WEIGHTS: {name: tensor for each in files.values() for name, tensor in each.items()}}
    for name, tensors in files.items():
        (into / name).write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
    if not single:
        places = {tensor: name for name, tensors in files.items() for tensor in tensors}
        total = sum(len(data) for tensors in files.values() for _, _, data in tensors.values())
        (into / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2))
    (into / "config.json").write_text(json.dumps(_CONFIG, indent=2))
    for name in EXTRAS:
        (into / name).write_text("{}")
    (into / "README.md").write_text("The base.\n")
    return into


def write_adapter(into: Path, *, seed: int = 1) -> Path:
    into.mkdir(parents=True)
    random = Random(seed)
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    modules = {"lm_head": (WORDS, WIDTH)}
    for layer in range(LAYERS):
        for module in ("self_attn.q_proj", "mlp.down_proj"):
            modules[f"model.layers.{layer}.{module}"] = _LAYER[module]
    for module, (rows, columns) in modules.items():
        for half, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            data = b"".join(_numbers(random, shape))
            tensors[f"base_model.model.{module}.lora_{half}.weight"] = ("F32", shape, data)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": RANK, "lora_alpha": 4,
        "target_modules": list(TARGETS),
    }  # fmt: skip
    (into / "adapter_config.json").write_text(json.dumps(config))
    (into / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    return into


def as_in_the_cache(base: Path, into: Path) -> Path:
    """The same files as the Hub's cache has them: links into a room of blobs named by digest."""
    (into / "blobs").mkdir(parents=True)
    snapshot = into / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    for path in base.iterdir():
        blob = into / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def digests(directory: Path) -> dict[str, str]:
    """Relative path → what it is: the digest of a file's bytes, or where a link points."""
    return {
        str(path.relative_to(directory)): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def inodes(directory: Path) -> dict[str, tuple[int, int]]:
    """Of the finished files of weights: the inode, and when it was written, since the number of one that is gone is given away."""
    if not directory.is_dir():
        return {}
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.glob("*.safetensors")}


def loadable(parent: Path) -> list[Path]:
    """Every directory at or below ``parent``, hidden ones too, that has what transformers looks for: a config beside weights
    or their index. A torn one is none."""
    return [
        path.parent
        for path in sorted(parent.rglob("config.json"))
        if _is_json(path) and ((path.parent / WEIGHTS).exists() or _is_json(path.parent / INDEX))
    ]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    found: dict[str, Any] = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return found


def tensors(path: Path) -> Tensors:
    """As :func:`tests.conftest.safetensors_bytes` takes them, to write a file anew with something changed."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    found: Mapping[str, Any] = {name: spec for name, spec in header(path).items() if name != "__metadata__"}
    return {
        name: (
            spec["dtype"],
            tuple(spec["shape"]),
            data[start + spec["data_offsets"][0] : start + spec["data_offsets"][1]],
        )
        for name, spec in found.items()
    }


def _numbers(random: Random, shape: tuple[int, ...]) -> list[bytes]:
    """Each as a float32, of which the upper two bytes are a bfloat16."""
    return [struct.pack("<f", random.gauss(0, 1)) for _ in range(prod(shape))]
