"""What can be wrong with the tensors of one LoRA layer."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.variants.findings import error, warning
from registry.variants.lora_layers import LoraLayer
from registry.variants.lora_settings import LoraSettings


def zero_size(tensors: Iterable[TensorSpec]) -> Iterable[Finding]:
    for spec in tensors:
        if 0 in spec.shape:
            yield error(
                "zero-size-tensor",
                f"{spec.name} has shape {shown(spec.shape)}: it was saved under ZeRO-3 without gathering",
                where=spec.name,
                fix="save again with stage3_gather_16bit_weights_on_model_save, or under GatheredParameters",
            )


def orphans(layer: LoraLayer) -> Iterable[Finding]:
    """A needs B and B needs A; the small tensors need both."""
    a, b = ("lora_embedding_A", "lora_embedding_B") if layer.embedding else ("lora_A", "lora_B")
    missing = [name for name, spec in ((a, layer.a), (b, layer.b)) if spec is None]
    if missing:
        present = next(iter(layer.tensors))
        yield error(
            "orphan-factor",
            f"{present.name} has no {' and no '.join(missing)}: the file is incomplete",
            where=present.name,
            fix="save or upload the adapter again",
        )


def misshapen(layer: LoraLayer, a: TensorSpec, b: TensorSpec, settings: LoraSettings, path: str) -> Iterable[Finding]:
    """Whether the factors pair, and the small tensors fit them. ``path`` is the module's, as PEFT matches it."""
    problem = _pairing(a, b, layer.embedding, settings, path)
    if problem is not None:
        yield error(
            "shape-mismatch",
            f"{a.name} {shown(a.shape)} and {b.name} {shown(b.shape)} do not pair: {problem}",
            where=a.name,
            fix="save the adapter again with PEFT",
        )
        return
    out = b.shape[0]
    for spec, size, what in (
        (layer.magnitude, out, "the outputs of lora_B"),
        (layer.bias, out, "the outputs of lora_B"),
        (layer.diagonal, a.shape[0], "the rank"),
    ):
        if spec is not None and prod(spec.shape) != size:
            yield error(
                "shape-mismatch",
                f"{spec.name} is {shown(spec.shape)}, expected {size:,} elements, {what}",
                where=spec.name,
                fix="save the adapter again with PEFT",
            )


def _pairing(a: TensorSpec, b: TensorSpec, embedding: bool, settings: LoraSettings, path: str) -> str | None:
    dimensions = len(a.shape)
    if dimensions == 2 and len(b.shape) == 3:
        return "this is how loralib's enable_lora fused several projections, which PEFT has not read since 0.3"
    if dimensions != len(b.shape) or not 2 <= dimensions <= 5 or (embedding and dimensions != 2):
        return "expected two dimensions in both, or in a convolution as many in both, three to five"
    if dimensions > 2:
        return _convolution_pairing(a, b)
    blocks = settings.block_diagonal.blocks_of_b(path) if settings.block_diagonal else 1
    if a.shape[0] != b.shape[1] * blocks:
        return f"rank {a.shape[0]} in lora_A, {b.shape[1] * blocks} in lora_B"
    return None


def _convolution_pairing(a: TensorSpec, b: TensorSpec) -> str | None:
    if any(size != 1 for size in b.shape[2:]):
        return "expected a lora_B without extent in space"
    if a.shape[0] % b.shape[1]:  # B has the groups of the base, and so r / groups inputs
        return f"rank {a.shape[0]} in lora_A is no multiple of the {b.shape[1]} in lora_B"
    return None


def undeclared(layer: LoraLayer, settings: LoraSettings) -> Iterable[Finding]:
    """Small tensors that the config does not announce, or announces and are not there."""
    if layer.pair is None:
        return
    a, b = layer.pair
    if settings.dora and layer.magnitude is None:
        yield error(
            "dora-without-magnitude",
            f"use_dora is true and {a.name} has no lora_magnitude_vector beside it",
            where=a.name,
            fix="save the adapter again, or set use_dora to false if it was trained without",
        )
    if not settings.dora and layer.magnitude is not None:
        yield error(
            "magnitude-without-dora",
            f"{layer.magnitude.name} is there and use_dora is not true, so PEFT would drop it without a word",
            where=layer.magnitude.name,
            fix="set use_dora to true in adapter_config.json",
        )
    if settings.kasa and layer.diagonal is None:
        yield error(
            "kasa-without-diagonal",
            f"the config has a kasa_config and {a.name} has no lora_diag beside it",
            where=a.name,
            fix="save the adapter again, or remove kasa_config if it was trained without",
        )
    if not settings.kasa and layer.diagonal is not None:
        yield error(
            "diagonal-without-kasa",
            f"{layer.diagonal.name} is there and the config has no kasa_config, so PEFT would drop it without a word",
            where=layer.diagonal.name,
            fix="restore kasa_config in adapter_config.json",
        )
    if settings.lora_bias and layer.bias is None and not layer.embedding:
        yield warning(
            "bias-without-tensor",
            f"lora_bias is true and {b.name} has no lora_B.bias beside it",
            where=b.name,
            fix="save the adapter again, or set lora_bias to false",
        )
    if not settings.lora_bias and layer.bias is not None:
        yield warning(
            "tensor-without-bias",
            f"{layer.bias.name} is there and lora_bias is not true, so PEFT would drop it without a word",
            where=layer.bias.name,
            fix="set lora_bias to true in adapter_config.json",
        )


def shown(shape: Iterable[int]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
