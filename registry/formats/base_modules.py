"""From the tensors of a checkpoint to the modules they belong to: what each is, and its shape as a layer means it.

| stored | becomes |
|---|---|
| ``x.weight`` of two dimensions | linear, Conv1D by model class (its shape turned round), or embedding by name and class |
| ``x.weight`` of three to five | convolution |
| ``x.in_proj_weight`` | the ``nn.MultiheadAttention`` ``x`` |
| ``experts.gate_up_proj`` of three dimensions | fused experts, under the parameter's own name |
| ``x.qweight`` of GPTQ and AWQ | linear: the packing is known, so the shape is |
| ``x.weight`` as bytes, ``x.weight_packed``, ``x_blocks`` | packed: no shape |
| ``x.bias`` | a fact about ``x`` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.tensors import TensorSpec
from registry.formats.base_classes import conv1d_names, embedding_names, linear_names
from registry.formats.model_config import ModelConfig

_EMBEDDING = re.compile(r"wte|wpe|shared|embed_(?!out$)\w+|(?:\w+_)?embeddings?(?:_\d+)?|relative_attention_bias")
_OF_PACKING = re.compile(
    r"\.(?:weight\.(?:absmax|quant_map|nested_\w+|quant_state\..+)|SCB|weight_format|qzeros|scales|g_idx"
    r"|(?:weight|input|k|v)_(?:scale\w*|zero_point|shape|g_idx)|\w+_scales)$"
)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,6})(?:\.|$)")
_BYTES = frozenset({"U8", "I32", "F4"})


def modules_of(tensors: Iterable[TensorSpec], config: ModelConfig) -> tuple[ModuleSpec, ...]:
    """The modules in the order of their names; tensors that only unpack others (scales, zero points) are none."""
    conv1d, embeddings, linear = (_names(each, config) for each in (conv1d_names, embedding_names, linear_names))
    found: dict[str, tuple[ModuleKind, tuple[int, ...] | None]] = {}
    biased: set[str] = set()
    for spec in tensors:
        module, _, tail = spec.name.rpartition(".")
        if _OF_PACKING.search(spec.name):
            continue
        if tail == "bias":
            biased.add(module)
        elif tail == "weight":
            name = word(module)
            is_embedding = name in embeddings or (name not in linear and _EMBEDDING.fullmatch(name) is not None)
            found[module] = _weight(spec, is_conv1d=name in conv1d, is_embedding=is_embedding)
        elif tail == "in_proj_weight":
            found[module] = ModuleKind.LINEAR, spec.shape
        elif tail == "qweight":
            shape = _unpacked(spec, config)
            found[module] = (ModuleKind.LINEAR if shape else ModuleKind.PACKED), shape
        elif tail == "weight_packed":
            found[module] = ModuleKind.PACKED, None
        elif tail.endswith("_blocks"):
            found[spec.name.removesuffix("_blocks")] = ModuleKind.PACKED, None
        else:
            found[spec.name] = (ModuleKind.EXPERTS if len(spec.shape) == 3 else ModuleKind.OTHER), spec.shape
    return tuple(
        ModuleSpec(path, kind, shape, has_bias=path in biased) for path, (kind, shape) in sorted(found.items())
    )


def layers_of(modules: Iterable[ModuleSpec], config: ModelConfig) -> int | None:
    """How many layers the model has, if some module is in one that the config does not count."""
    numbers = (number for module in modules if (number := layer_number(module.path)) is not None)
    return config.layers if config.layers is not None and max(numbers, default=0) >= config.layers else None


def _names(of: Callable[[str], frozenset[str]], config: ModelConfig) -> frozenset[str]:
    """Of the model and of the models that it is made of."""
    return frozenset(name for model_type in (*config.model_types, "") for name in of(model_type))


def layer_number(path: str) -> int | None:
    """Of the first row of ``layers`` in the path; None outside."""
    found = _LAYER.search(path)
    return int(found[1]) if found is not None else None


def word(path: str) -> str:
    """What a module is called: the last of its names that is no number in a list."""
    return next((part for part in reversed(path.split(".")) if not part.isdecimal()), "")


def _weight(spec: TensorSpec, *, is_conv1d: bool, is_embedding: bool) -> tuple[ModuleKind, tuple[int, ...] | None]:
    if spec.dtype in _BYTES:
        return ModuleKind.PACKED, None
    if len(spec.shape) == 2:
        if is_conv1d:
            return ModuleKind.CONV1D, spec.shape[::-1]
        return (ModuleKind.EMBEDDING if is_embedding else ModuleKind.LINEAR), spec.shape
    return (ModuleKind.CONV if len(spec.shape) in (3, 4, 5) else ModuleKind.OTHER), spec.shape


def _unpacked(spec: TensorSpec, config: ModelConfig) -> tuple[int, int] | None:
    """(out, in) of a weight packed into 32-bit words: by GPTQ along the inputs, by AWQ along the outputs."""
    bits = config.quantization.get("bits")
    if spec.dtype != "I32" or len(spec.shape) != 2 or not isinstance(bits, int) or bits not in (2, 3, 4, 8):
        return None
    rows, columns = spec.shape
    match config.quantization.get("quant_method"):
        case "gptq":
            return columns, rows * 32 // bits
        case "awq":
            return columns * 32 // bits, rows
    return None
