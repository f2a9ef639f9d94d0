"""Bases and subjects as tables of tensors, without bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from registry.checks.rule import Subject
from registry.checks.table import run
from registry.domain.base_model import BaseModelId, BaseModelSpec
from registry.domain.digest import Digest
from registry.domain.finding import Finding
from registry.domain.manifest import Manifest
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.formats.base_modules import layers_of, modules_of
from registry.formats.model_config import ModelConfig
from tests.variants.adapters import read

NAME = "acme/tiny"
HIDDEN, INNER, VOCABULARY = 64, 96, 128

#: A llama of two layers: tensor → shape, (out, in).
LLAMA: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (32, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
            "input_layernorm": (HIDDEN,),
        }.items()
    },
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCABULARY, HIDDEN),
}
GPT2: dict[str, tuple[int, ...]] = {
    "transformer.wte.weight": (VOCABULARY, HIDDEN),
    "transformer.h.0.attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
    "transformer.h.0.attn.c_attn.bias": (3 * HIDDEN,),
    "transformer.h.0.mlp.c_proj.weight": (4 * HIDDEN, HIDDEN),
}


def base(
    tensors: Mapping[str, tuple[int, ...]] = LLAMA,
    *,
    model_type: str = "llama",
    architecture: str = "LlamaForCausalLM",
    dtypes: Mapping[str, str] | None = None,
    name: str | None = NAME,
    **config: Any,
) -> BaseModelSpec:
    specs = [TensorSpec(tensor, (dtypes or {}).get(tensor, "F16"), shape) for tensor, shape in tensors.items()]
    view = ModelConfig({"model_type": model_type, "architectures": [architecture], **config})
    fingerprint = Digest.of(repr(sorted(tensors.items())).encode())
    modules = modules_of(specs, view)
    return BaseModelSpec(
        id=BaseModelId(name, raw=name or "/bases/tiny", fingerprint=fingerprint),
        model_type=model_type,
        architectures=(architecture,),
        modules=modules,
        is_tied=view.is_tied,
        vocabulary=view.vocabulary,
        fingerprint=fingerprint,
        is_quantized=bool(view.quantization),
        layers=layers_of(modules, view),
    )


def subject(
    tensors: Iterable[TensorSpec],
    on: BaseModelSpec | None = None,
    *,
    trained_on: BaseModelId | None = None,
    **config: Any,
) -> Subject:
    """An adapter (LORA for CAUSAL_LM unless the config says otherwise) held against a base."""
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", **config}
    specs = tuple(tensors)
    reading = read(specs, **fields)
    manifest = Manifest(
        peft_type=str(fields["peft_type"]),
        variant=reading.variant,
        base_model=trained_on or BaseModelId(NAME, raw=NAME),
        task_type=fields["task_type"],
        targets=reading.targets,
        tensors=specs,
        tensor_identity=Digest.of(b""),
        files=(),
        extra_modules=reading.extra_modules,
        absent_targets=reading.absent_targets,
        base_change=reading.base_change,
    )
    return Subject(manifest, AdapterConfig(fields), base() if on is None else on)


def noticed(one: Subject) -> list[str]:
    return [finding.rule for finding in run(one)]


def finding(one: Subject, rule: str) -> Finding:
    """The first of the rule; every finding says what to do."""
    found = next(each for each in run(one) if each.rule == rule)
    assert found.fix
    return found
