"""bitsandbytes as the oracle: weights packed and unpacked by it, and checkpoints that hold them.

Its AVX-512 kernel counts the blocks of each row on its own, and gives wrong numbers where the columns are a multiple of
16 and none of the block (0.50.2, ``dequantizeBlockwise4bitCpu``; the kernels for CUDA count through the whole tensor).
There its own reference in torch is asked instead.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import bitsandbytes.functional as bnb  # noqa: E402
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute as reference  # noqa: E402

LEVELS = bnb.get_4bit_type("nf4", device="cpu")
QUANTIZATION = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "llm_int8_skip_modules": None,
}
#: Neither a multiple of the block: blocks run across the rows.
SIZES = {"hidden_size": 80, "intermediate_size": 100, "vocab_size": 40}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def packed(weight: Tensor, *, block: int = 64, nested: bool = False, storage: torch.dtype = torch.uint8) -> Any:
    return bnb.quantize_4bit(
        weight, blocksize=block, compress_statistics=nested, quant_type="nf4", quant_storage=storage
    )


def unpacked(codes: Tensor, state: Any) -> Tensor:
    columns = state.shape[-1]
    if columns % 16 or columns % state.blocksize == 0:
        with torch.compiler.set_stance("force_eager"):
            return bnb.dequantize_4bit(codes, state)
    scales = state.absmax
    if state.nested:
        scales = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    flat = codes.view(torch.uint8).reshape(-1)
    with torch.compiler.set_stance("force_eager"):
        return reference(flat, scales, LEVELS, state.blocksize, state.shape, state.dtype)


def through_nf4(weight: Tensor, *, block: int = 64, nested: bool = False) -> Tensor:
    return unpacked(*packed(weight, block=block, nested=nested))


def stored(name: str, codes: Tensor, state: Any) -> dict[str, Tensor]:
    """The tensors of a packed weight, as ``save_pretrained`` writes them."""
    beside = {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    return {name: codes, **beside}


def pack(base: Path, into: Path, names: Iterable[str], **how: Any) -> Path:
    """The checkpoint with these weights packed, in one file."""
    shutil.copytree(base, into)
    tensors = load_file(base / "model.safetensors")
    for name in names:
        tensors |= stored(name, *packed(tensors.pop(name), **how))
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    edit_config(into, quantization_config=QUANTIZATION)
    return into


def plain(base: Path, into: Path, names: Iterable[str], **how: Any) -> Path:
    """The checkpoint with these weights packed and unpacked again."""
    shutil.copytree(base, into)
    tensors = load_file(base / "model.safetensors")
    tensors |= {name: through_nf4(tensors[name], **how) for name in names}
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return into


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Bit for bit, types and names as well."""
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(bits(tensor), bits(theirs[name]))
        for name, tensor in ours.items()
    )


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, **SIZES, **changes}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes))


def save_adapter(model: Any, place: Path, targets: Sequence[str] = ("q_proj", "down_proj")) -> Path:
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(targets)))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    wrapped.save_pretrained(str(place))
    config = place / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "acme/tiny"}))
    return place


def tensors_of(directory: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        found |= load_file(path)
    return found


def config_of(directory: Path) -> Any:
    return json.loads((directory / "config.json").read_text())
