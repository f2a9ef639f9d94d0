"""Adapters for the checks: a config and a table of tensors, described by their anatomy as a push does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from registry.checks.profile import Profile
from registry.checks.rule import Subject
from registry.domain.base_model import BaseModelId, BaseModelSpec, ModuleKind, ModuleSpec
from registry.domain.digest import Digest
from registry.domain.manifest import FileEntry, Manifest
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy

PREFIX = "base_model.model."
DIGEST = Digest.of(b"")
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "meta-llama/Llama-3.1-8B",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "task_type": "CAUSAL_LM",
}


def tensor(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(f"{PREFIX}{name}", "F32", shape)


def pair(path: str, rank: int = 8, width: int = 64) -> list[TensorSpec]:
    return [tensor(f"{path}.lora_A.weight", rank, width), tensor(f"{path}.lora_B.weight", width, rank)]


def layers(*names: str, numbers: Iterable[int] = (0, 1), rank: int = 8) -> list[TensorSpec]:
    return [spec for n in numbers for name in names for spec in pair(f"model.layers.{n}.self_attn.{name}", rank)]


def subject(
    tensors: Sequence[TensorSpec] | None = None,
    *,
    profile: Profile | None = None,
    base: BaseModelSpec | None = None,
    base_id: str | None = "meta-llama/Llama-3.1-8B",
    files: Sequence[str] = (),
    **config: Any,
) -> Subject:
    """A plain LoRA of rank 8 on q_proj and v_proj, unless told otherwise; a field given as ``...`` is left out."""
    raw = {key: value for key, value in {**CONFIG, **config}.items() if value is not ...}
    parsed = AdapterConfig(raw)
    table = tuple(layers("q_proj", "v_proj") if tensors is None else tensors)
    reading = read_anatomy(parsed, table, Patterns())
    manifest = Manifest(
        peft_type=parsed.peft_type.upper(),
        variant=reading.variant,
        base_model=BaseModelId(base_id),
        task_type=parsed.task_type,
        targets=reading.targets,
        tensors=table,
        tensor_identity=DIGEST,
        files=tuple(FileEntry(path, DIGEST, 1) for path in files),
        extra_modules=reading.extra_modules,
        absent_targets=reading.absent_targets,
        base_change=reading.base_change,
    )
    return Subject(manifest, parsed, base, profile)


def llama(
    *, layer_count: int = 2, vocabulary: int | None = 100, is_tied: bool = False, model_type: str = "llama"
) -> BaseModelSpec:
    modules = [
        ModuleSpec(f"model.layers.{n}.self_attn.{name}", ModuleKind.LINEAR, (64, 64))
        for n in range(layer_count)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    return BaseModelSpec(
        BaseModelId("meta-llama/Llama-3.1-8B"), model_type, (), tuple(modules), is_tied, vocabulary, DIGEST
    )
