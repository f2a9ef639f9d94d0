"""The tensors of a LoRA file, gathered by the layer they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from registry.domain.tensors import TensorSpec
from registry.variants.tensor_names import Place

#: What PEFT writes below a module: ``peft/tuners/lora/layer.py`` and ``variants.py``. The magnitude vector of DoRA has
#: ``.weight`` in memory and, since PEFT removes it when saving, not in files.
TAILS = re.compile(
    r"lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|lora_diag"
    r"|lora_velora_embed|lora_monteclora_sampler\.\w+|lora_arrow\.\w+|trainable_tokens_delta"
)
#: Only training looks at these; PEFT saves them because they are buffers.
_OF_TRAINING = ("lora_velora_embed", "lora_monteclora_sampler.", "lora_arrow.")


def is_of_training(name: str) -> bool:
    """Whether a tensor is one that only training looks at."""
    return any(f".{part}" in name for part in _OF_TRAINING)


@dataclass(slots=True)
class LoraLayer:
    """``path`` is as in the file, with PEFT's ``base_layer``: the ``out_proj`` of an ``nn.MultiheadAttention`` is at
    ``attn.base_layer.out_proj``, an inner ``ParamWrapper`` at ``experts.base_layer``.

    Shapes, with rank r: Linear and Conv1D A (r, in), B (out, r); ConvNd A (r, in, k…), B (out, r/groups, 1…);
    embedding A (r, vocabulary), B (dimension, r); fused experts A (r·E, in), B (out, r·E).
    """

    path: str
    a: TensorSpec | None = None
    b: TensorSpec | None = None
    embedding: bool = False
    bias: TensorSpec | None = None
    magnitude: TensorSpec | None = None
    diagonal: TensorSpec | None = None

    @property
    def pair(self) -> tuple[TensorSpec, TensorSpec] | None:
        """A and B, if both are there."""
        return None if self.a is None or self.b is None else (self.a, self.b)

    @property
    def tensors(self) -> Iterator[TensorSpec]:
        for spec in (self.a, self.b, self.bias, self.magnitude, self.diagonal):
            if spec is not None:
                yield spec


def gather(found: Iterable[Place]) -> tuple[list[LoraLayer], list[Place]]:
    """The layers in the order of the file, and the tensors that are no LoRA factors (or are there twice)."""
    layers: dict[str, LoraLayer] = {}
    left: list[Place] = []
    for place in found:
        tail = place.tail
        if not tail.startswith("lora_") or not place.path or TAILS.fullmatch(tail) is None:
            left.append(place)
        elif not tail.startswith(_OF_TRAINING):
            layer = layers.get(place.path) or layers.setdefault(place.path, LoraLayer(place.path))
            if not _take(layer, tail, place.spec):
                left.append(place)
    return list(layers.values()), left


def _take(layer: LoraLayer, tail: str, spec: TensorSpec) -> bool:
    embedding = tail.startswith("lora_embedding_")
    if embedding or tail in {"lora_A.weight", "lora_B.weight"}:
        if (layer.a or layer.b) and layer.embedding != embedding:
            return False
        layer.embedding = embedding
        if tail in {"lora_A.weight", "lora_embedding_A"}:
            free, layer.a = layer.a is None, layer.a or spec
        else:
            free, layer.b = layer.b is None, layer.b or spec
    elif tail == "lora_B.bias":
        free, layer.bias = layer.bias is None, layer.bias or spec
    elif tail == "lora_diag":
        free, layer.diagonal = layer.diagonal is None, layer.diagonal or spec
    else:
        free, layer.magnitude = layer.magnitude is None, layer.magnitude or spec
    return free
