"""What an adapter uses beyond plain LoRA, by the names that :mod:`registry.checks.profile` knows: the *features*.

A feature may be declared in the config, present in the tensors, or both; engines differ in which of the two they look at.
Wrong types in the config are not declarations: other rules speak of them, and here nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from registry.checks.rule import Subject
from registry.domain.tensors import TensorSpec

_EMBEDDINGS = frozenset(
    {"embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared", "tok_embeddings"}
)
_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")

#: The first that is found in a tensor's name says what the tensor is.
_KINDS = (
    (re.compile(r"\.lora_embedding_[AB]$"), "embedding_lora"),
    (re.compile(r"\.lora_magnitude_vector(\.weight)?$"), "dora"),
    (re.compile(r"\.lora_B\.bias$"), "lora_bias"),
    (re.compile(r"\.lora_diag$"), "kasa"),
    (re.compile(r"\.lora_"), "buffer"),  # of training: MonteCLoRA's, VeLoRA's
    (re.compile(r"\.(token_adapter|trainable_tokens_delta)(\.|$)"), "trainable_tokens"),
    (re.compile(r"\.base_layer\.weight$"), "base_copy"),
    (re.compile(r"\.bias$"), "bias"),
    (re.compile(r"norm\d?\.weight$"), "norm"),
)


@dataclass(frozen=True, slots=True)
class Use:
    """``field`` is where it is declared, None if it is not; ``tensors`` are those that only this feature has."""

    field: str | None
    tensors: tuple[TensorSpec, ...] = ()
    is_present: bool = False

    @property
    def first(self) -> str:
        return self.tensors[0].name if self.tensors else ""


def kind(name: str, saved: Sequence[str]) -> str:
    """The feature that a tensor belongs to, by its name: ``lora`` for plain factors, ``other`` where nothing is known.
    ``saved`` is ``modules_to_save``: the module's path, or one it lies in, *ends* with the name."""
    if name.endswith(_FACTORS):  # nearly all of them
        return "lora"
    parts = name.removeprefix(_PREFIX).split(".")[:-1]
    if saved and ".lora_" not in name:
        paths = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        if any(path.endswith(tuple(saved)) for path in paths):
            return "modules_to_save"
    for pattern, feature in _KINDS:
        if pattern.search(name):
            return feature
    return "whole_embedding" if parts and parts[-1] in _EMBEDDINGS else "other"


def saved_names(subject: Subject) -> tuple[str, ...]:
    value = subject.config.raw.get("modules_to_save")
    return tuple(item for item in value if isinstance(item, str) and item) if isinstance(value, list) else ()


def use_of(subject: Subject, feature: str) -> Use:
    """What the adapter has of the feature. One without tensors of its own is present where it is declared."""
    declaration = _DECLARATIONS.get(feature)
    field = declaration.field if declaration is not None and declaration.holds(subject) else None
    if declaration is not None and not declaration.has_tensors:
        return Use(field, is_present=field is not None)
    saved = saved_names(subject)
    tensors = tuple(spec for spec in subject.manifest.tensors if kind(spec.name, saved) == feature)
    return Use(field, tensors, is_present=bool(tensors))


@dataclass(frozen=True, slots=True)
class _Declaration:
    field: str
    holds: Callable[[Subject], bool]
    has_tensors: bool = False


def _set(field: str, *, has_tensors: bool = False) -> _Declaration:
    return _Declaration(field, lambda subject: subject.config.truthy(field), has_tensors)


def _trains_bias(subject: Subject) -> bool:
    return subject.config.raw.get("bias") not in (None, "none")


def _adapts_half_of_experts(subject: Subject) -> bool:
    """Whether a module with fused experts has only one of its two parameters adapted."""
    found: dict[str, set[str]] = {}
    for target in subject.manifest.targets:
        module, _, parameter = target.path.rpartition(".")
        if module.endswith("experts") and parameter in {"gate_up_proj", "down_proj"}:
            found.setdefault(module, set()).add(parameter)
    return any(len(parameters) == 1 for parameters in found.values())


def _has_added_tokens(subject: Subject) -> bool:
    return any(entry.path == "added_tokens.json" for entry in subject.manifest.files)


def _names_no_base(subject: Subject) -> bool:
    return subject.manifest.base_model.id is None


_DECLARATIONS: Mapping[str, _Declaration] = {
    "dora": _set("use_dora", has_tensors=True),
    "bias": _Declaration("bias", _trains_bias, has_tensors=True),
    "lora_bias": _set("lora_bias", has_tensors=True),
    "trainable_tokens": _set("trainable_token_indices", has_tensors=True),
    "modules_to_save": _set("modules_to_save", has_tensors=True),
    "kasa": _set("kasa_config", has_tensors=True),
    "target_parameters": _set("target_parameters"),
    "half_experts": _Declaration("target_parameters", _adapts_half_of_experts),
    "alora": _set("alora_invocation_tokens"),
    "arrow": _set("arrow_config"),
    "qalora": _set("use_qalora"),
    "bdlora": _set("use_bdlora"),
    "layer_replication": _set("layer_replication"),
    "added_tokens": _Declaration("added_tokens.json", _has_added_tokens),
    "no_base": _Declaration("base_model_name_or_path", _names_no_base),
}
